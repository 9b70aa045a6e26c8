"""Fixtures that several folders of tests share."""

import os
import re
import signal

import pytest

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before NumPy is imported; a second thread helps no product of this size


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Run tiny models on one thread: on a busy machine a second one makes them twenty times slower."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def hung_up_as_usual():
    """Let commands end when a terminal is closed, also where the tests themselves run under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def same_environment():
    """Leave to the next test the environment that this one found, whatever it imported on its way."""
    before = dict(os.environ)
    yield
    if dict(os.environ) != before:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(autouse=True, scope="session")
def own_configuration(tmp_path_factory):
    """Keep what tests name as servers out of the configuration of whoever runs them."""
    import tiny
    import warm

    os.environ["RANKEXP_CONFIG"] = str(tmp_path_factory.mktemp("config"))
    warm.usual.update(tiny.environment())


@pytest.fixture(scope="session")
def bench(tmp_path_factory):
    """Return a tiny model with its data; every trial leaves it as it was."""
    from tiny_bench import make_bench

    return make_bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, worker_id):
    """Return the folder of a sweep of seconds that nothing disturbed; the processes of a test run share one."""
    from filelock import FileLock
    from tiny import sweep

    shared = tmp_path_factory.getbasetemp()
    shared = shared if worker_id == "master" else shared.parent
    folder = shared / "undisturbed"
    with FileLock(shared / "undisturbed.lock"):
        if not (folder / "runs").exists():
            folder.mkdir()
            done = sweep(folder)
            assert done.returncode == 0, done.stderr
            assert "trained   12 trials" in done.stdout
    return folder


@pytest.fixture
def store(tmp_path):
    """Return an empty record of trials."""
    from rankexp.record.trials import TrialStore

    return TrialStore(tmp_path)


@pytest.fixture(scope="session")
def one_sentence():
    """Return a check that a message for a person is one sentence on one line; it returns the message."""

    def check(message: object) -> str:
        text = str(message)
        assert "\n" not in text, text
        assert re.search(r"[.?]$", text), text
        assert not re.search(r"[.?!] +[A-Z]", text), text
        assert not text.endswith(".."), text
        return text

    return check


@pytest.fixture
def write(tmp_path):
    """Return what writes a file of text or bytes and returns its path."""

    def write(content, name="data.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write
