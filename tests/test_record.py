"""The record of trials: whole or not at all, checked on reading, never a pickle."""

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from rankexp.record.files import DamagedRecordError, read_json, write_atomic
from rankexp.record.leftovers import remove_leftovers
from rankexp.record.processes import this_machine
from rankexp.record.scores import Scores
from rankexp.record.trial import TrialResult
from rankexp.record.trials import TrialStore
from rankexp.trial_spec import TrialSpec

SPEC = TrialSpec(model="m", data="d", task="csv", method="lora", rank_map={"q": 4}, learning_rate=1e-3, steps=9)
DONE = TrialResult(
    "completed",
    metrics={"tune": {"accuracy": 0.5, "loss": 0.7, "examples": 4}},
    history=({"step": 1, "loss": 0.9}, {"step": 2, "loss": 0.8}),
    cost={"trainable_parameters": 64},
    environment={"torch": "2"},
    finished="2026-11-01T00:00:00+00:00",
)
SCORES = Scores(
    np.array(["a", "b", "ç", "d"]), np.array(["g", "g", "ç", "d"]),
    {"accuracy": np.array([1, 0, 1, 0], np.float32), "loss": np.array([0.1, 2.0, 0.3, 0.4], np.float32)},
)  # fmt: skip


def save_adapter(folder):
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(bytes(range(100)))


@pytest.fixture
def store(tmp_path):
    return TrialStore(tmp_path)


@pytest.fixture
def trial(store):
    return store.write(SPEC, DONE, {"tune": SCORES}, save_adapter)


def run(code, *arguments):
    """Run Python code that finds this file's names, in a process of its own."""
    code = f"import os, sys\nsys.path.insert(0, {os.path.dirname(__file__)!r})\nfrom test_record import *\n" + code
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stderr=subprocess.PIPE, text=True)


def leftovers(folder):
    return [path.name for path in folder.rglob(".tmp-*")]


def test_what_was_written_is_read(store, trial):
    for read in (trial, store.read(SPEC.key), store.verify(SPEC.key)):
        assert (read.spec, read.result, read.key) == (SPEC, DONE, SPEC.key)
    scores = trial.scores("tune")
    for name in ("example_ids", "group_ids"):
        np.testing.assert_array_equal(getattr(scores, name), getattr(SCORES, name), strict=True)
    assert list(scores.values) == list(SCORES.values)
    for name, values in scores.values.items():
        np.testing.assert_array_equal(values, SCORES.values[name], strict=True)
    assert (scores.mean("accuracy"), scores.mean("loss")) == (0.5, pytest.approx(0.7))
    assert list(store.keys()) == [SPEC.key]
    assert store.finished(SPEC.key)
    assert not leftovers(store.root)
    assert sorted(p.relative_to(trial.folder).as_posix() for p in trial.folder.rglob("*") if p.is_file()) == [
        "adapter/adapter_model.safetensors", "result.json", "scores/tune.npz", "spec.json",
    ]  # fmt: skip


def test_an_empty_workspace_holds_nothing(store):
    assert list(store.keys()) == []
    assert SPEC.key not in store
    assert not store.finished(SPEC.key)
    remove_leftovers(store.root.parent, store.root.parent / "studies" / "one")
    assert not store.root.exists()


def test_equal_scores_give_equal_bytes(trial, store):
    again = dataclasses.replace(SCORES, values={name: array.copy() for name, array in SCORES.values.items()})
    assert again.to_bytes() == SCORES.to_bytes() == (trial.folder / "scores/tune.npz").read_bytes()
    assert (
        dataclasses.replace(SCORES, values={name: array + 1 for name, array in SCORES.values.items()}).to_bytes()
        != SCORES.to_bytes()
    )


def test_a_pickle_in_a_file_of_scores_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "executed"), "w")

    buffer = io.BytesIO()
    names = ("group_ids", "correct", "loss")
    np.savez(buffer, example_ids=np.array([Evil()], dtype=object), **{name: np.zeros(1) for name in names})
    with pytest.raises(ValueError, match="allow_pickle=False"):
        Scores.from_bytes(buffer.getvalue())
    assert not (tmp_path / "executed").exists()


FILES = ["spec.json", "result.json", "scores/tune.npz", "adapter/adapter_model.safetensors"]


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_noticed_wherever_it_is(store, trial, name):
    path = trial.folder / name
    whole = path.read_bytes()
    for position in range(0, len(whole), 1 + len(whole) // 25):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 2]) + whole[position + 1 :])
        if name.endswith(".json") and json_equal(whole, path.read_bytes()):
            continue  # white space
        with pytest.raises(DamagedRecordError, match=path.name):
            store.verify(SPEC.key)
    path.write_bytes(whole)
    assert store.verify(SPEC.key).result == DONE


def json_equal(one, other):
    try:
        return json.loads(one) == json.loads(other)
    except ValueError:
        return False


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("left", [0, 1, 0.5, None], ids=["empty", "a byte", "half", "gone"])
def test_a_truncated_or_missing_file_is_named(store, trial, name, left):
    path = trial.folder / name
    size = path.stat().st_size
    path.unlink() if left is None else os.truncate(path, int(size * left) if left == 0.5 else left)
    with pytest.raises(DamagedRecordError, match=str(path)):
        store.verify(SPEC.key)


@pytest.mark.parametrize("text", ["[]", "{}", "3", '"x"', '{"schema": 1}'])
@pytest.mark.parametrize("name", ["spec.json", "result.json"])
def test_json_of_another_shape_is_damage(store, trial, name, text):
    (trial.folder / name).write_text(text)
    with pytest.raises(DamagedRecordError, match=name):
        store.read(SPEC.key)


def test_damaged_scores_are_not_returned(trial):
    path = trial.folder / "scores/tune.npz"
    path.write_bytes(
        dataclasses.replace(SCORES, values={**SCORES.values, "accuracy": 1 - SCORES.values["accuracy"]}).to_bytes()
    )
    with pytest.raises(DamagedRecordError, match=r"tune\.npz does not match the hash"):
        trial.scores("tune")
    with pytest.raises(DamagedRecordError, match=r"decide\.npz"):
        trial.scores("decide")


def test_a_trial_under_another_key_is_damage(store, trial):
    trial.folder.rename(store.root / ("0" * 20))
    with pytest.raises(DamagedRecordError, match=r"spec\.json does not match its content key"):
        store.read("0" * 20)


@pytest.mark.parametrize("status", ["completed", "diverged", "failed"])
def test_a_final_result_is_kept_and_a_failed_one_replaced(store, status):
    first = dataclasses.replace(DONE, status=status, reason="first")
    store.write(SPEC, first, {})
    assert store.finished(SPEC.key) == (status != "failed")
    kept = store.write(SPEC, DONE, {"tune": SCORES}, save_adapter)
    assert kept.result == (DONE if status == "failed" else first)
    assert kept.adapter.exists() == (status == "failed")
    assert store.verify(SPEC.key) == kept
    assert not leftovers(store.root)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_trial_is_replaced(store, trial, name):
    os.truncate(trial.folder / name, 5)
    store.write(SPEC, DONE, {"tune": SCORES}, save_adapter)
    assert store.verify(SPEC.key).result == DONE


def test_a_result_that_is_not_finite_leaves_nothing_behind_that_counts(store):
    with pytest.raises(ValueError, match="Out of range"):
        store.write(SPEC, dataclasses.replace(DONE, metrics={"tune": {"loss": float("nan")}}), {})
    assert list(store.keys()) == []


@pytest.mark.slow
def test_killed_before_the_rename_a_trial_is_not_there_and_can_be_written_again(tmp_path, store):
    writer = run(
        "os.rename = lambda *_: os.kill(os.getpid(), 9)\n"
        "TrialStore(sys.argv[1]).write(SPEC, DONE, {'tune': SCORES}, save_adapter)", tmp_path,
    )  # fmt: skip
    writer.communicate()
    assert writer.returncode == -signal.SIGKILL
    assert leftovers(store.root) == [f".tmp-{SPEC.key}-{writer.pid}@{this_machine()}"]
    assert list(store.keys()) == []
    assert SPEC.key not in store
    remove_leftovers(store.root.parent, store.root.parent / "studies" / "one")
    assert not leftovers(store.root)
    assert store.write(SPEC, DONE, {}).result == DONE


@pytest.mark.slow
def test_killed_before_the_rename_a_file_keeps_its_old_content(tmp_path):
    study = tmp_path / "studies" / "one"
    path = study / "report" / "file.json"
    write_atomic(path, b'"old"')
    code = "os.replace = lambda *_: os.kill(os.getpid(), 9)\nfrom pathlib import Path\n"
    writer = run(code + "write_atomic(Path(sys.argv[1]), b'\"new\"')", path)
    writer.communicate()
    assert writer.returncode == -signal.SIGKILL
    assert path.read_bytes() == b'"old"'
    assert leftovers(path.parent) == [f".tmp-file.json-{writer.pid}@{this_machine()}"]
    remove_leftovers(tmp_path, study)
    assert not leftovers(path.parent)
    write_atomic(path, b'{"new": 1}')
    assert read_json(path) == {"new": 1}


def test_a_file_that_cannot_be_replaced_leaves_no_temporary_one(tmp_path):
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="folder"):
        write_atomic(tmp_path / "folder", b"data")
    assert not leftovers(tmp_path)


def test_only_the_leftovers_of_dead_writers_are_removed(store, trial):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for pid in (dead.pid, os.getpid(), 1):
        (store.root / f".tmp-{SPEC.key}-{pid}@{this_machine()}" / "scores").mkdir(parents=True)
    of_another_machine = store.root / f".tmp-{SPEC.key}-{dead.pid}@elsewhere-01234567"
    of_another_machine.mkdir()
    remove_leftovers(store.root.parent, store.root.parent / "studies" / "one")
    kept = [f".tmp-{SPEC.key}-{pid}@{this_machine()}" for pid in (os.getpid(), 1)]
    assert sorted(leftovers(store.root)) == sorted([*kept, of_another_machine.name])
    assert list(store.keys()) == [SPEC.key]


@pytest.mark.slow
def test_what_another_machine_has_written_is_waited_for(store):
    began = time.monotonic()
    threading.Timer(0.3, lambda: store.write(SPEC, DONE, {})).start()
    store.await_key(SPEC.key, 30)
    assert SPEC.key in store
    store.await_key("0" * 20, 0.1)
    assert time.monotonic() - began < 20


@pytest.mark.slow
def test_two_processes_write_the_same_trials(tmp_path, store):
    code = """
import dataclasses, time
while not os.path.exists(sys.argv[2]):
    time.sleep(0.001)
for seed in range(40):
    TrialStore(sys.argv[1]).write(dataclasses.replace(SPEC, seed=seed), DONE, {"tune": SCORES}, save_adapter)
"""
    writers = [run(code, tmp_path, tmp_path / "go") for _ in range(2)]
    (tmp_path / "go").touch()
    errors = [writer.communicate()[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0], errors
    assert {store.verify(key).spec.seed for key in store.keys()} == set(range(40))
    assert not leftovers(store.root)


def test_what_was_half_mirrored_goes_and_what_mlflow_holds_stays(tmp_path):
    artifacts = tmp_path / "mlartifacts" / "one" / "run" / "artifacts" / "report" / "figures"
    artifacts.mkdir(parents=True)
    stale = artifacts / f".tmp-power.png-999999999@{this_machine()}"
    for path in (stale, artifacts / "power.png", artifacts / ".tmp-of-somebody"):
        path.write_bytes(b"x")
    remove_leftovers(tmp_path, tmp_path / "studies" / "one")
    assert sorted(path.name for path in artifacts.iterdir()) == [".tmp-of-somebody", "power.png"]
