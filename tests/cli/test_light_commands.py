"""What commands load that only look at a workspace: no more than they use, since loading is what takes them long."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from fake_study import make_study

from rankexp.study.coordination.claims import Claims
from rankexp.study.coordination.database import Storage
from rankexp.study.coordination.read_claims import claimed_in_own_file, lead_of

NAME = "fake-01234567"
_RUN = "import sys; from rankexp.cli.main import main; code = main(sys.argv[1:]); print(*sys.modules); sys.exit(code)"
_HEAVY = {"torch", "transformers", "mlflow", "matplotlib", "optuna", "hydra", "sqlalchemy", "pandas", "jinja2"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("light") / "runs 1%#?"
    make_study(folder, examples=60, accuracies={4: 0.7, 8: 0.72})
    with closing(Claims(Storage.of(folder))) as claims:
        token = claims.take(lead_of(NAME))
        assert token is not None
        claims.release(lead_of(NAME), token, done=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("words", "needless"), [
    (("status", NAME), _HEAVY),
    (("verify", NAME), {*_HEAVY, "numpy", "scipy"}),
    (("clean",), _HEAVY),
])  # fmt: skip
def test_only_what_is_needed_is_loaded(workspace: Path, words: tuple[str, ...], needless: set[str]) -> None:
    command = [sys.executable, "-c", _RUN, *words, f"workspace={workspace}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert "rankexp" in loaded
    assert not loaded & needless


def test_an_own_file_says_what_the_database_says(workspace: Path) -> None:
    with closing(Claims(Storage.of(workspace))) as claims:
        token = claims.take("trial")
        assert token is not None
        found = claimed_in_own_file(workspace)
        assert found == claims.claimed()
        assert found is not None
        assert found.owners == claims.owners()
        claims.release("trial", token, failed=True)
    assert list(found.owners) == ["trial"]
    assert found.done == {lead_of(NAME)}
