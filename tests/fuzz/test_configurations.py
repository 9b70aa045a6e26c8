"""Files of a ``--config-dir`` and words of a command line, broken in every way: composed, or refused in a sentence."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fuzz.mutations import broken_bytes, broken_tree, fuzzing, only_refused
from hostile.tricks import make_canary, state_of
from hypothesis import given
from hypothesis import strategies as st

from rankexp.cli.compose import run_with_hydra
from rankexp.cli.config_dir import CheckedFolder
from rankexp.cli.typed import read_typed
from rankexp.config import StudyConfig

pytestmark = pytest.mark.slow

SECRET = "xyzzy"
MINE: dict[str, Any] = {
    "defaults": [
        "rank_grid",
        {"override /model": "small"},
        {"override /launcher": "slurm"},
        {"override /task": "csv"},
        {"override /train": "short"},
        "_self_",
    ],
    "study": "mine",
    "workspace": "runs/${study}",
    "search": {"ranks": [2, 3], "shortlist": 2, "learning_rates": [1e-3, 0.01], "strategy": "grid"},
    "decide": {"seeds": 3, "margin": "2pt", "looks": []},
    "contest": {"contenders": {"deep": {"strategy": "allocated", "allocator": "by_depth"}}, "rank": 2},
    "task": {"path": "x.csv", "text": "review"},
    "hydra": {"launcher": {"partition": "gpu", "timeout_min": 90}},
}
SMALL = {"defaults": ["tiny", "_self_"], "name": "${.source}-small", "path": None}
FILES = {
    "mine.yaml": MINE,
    "model/small.yaml": SMALL,
    "train/short.yaml": {"steps": 7, "warmup_steps": 1, "precision": "float32"},
}
TRAPS = [
    "${oc.env:SECRET}", "${oc.decode:'${oc.env:SECRET}'}", "${hydra:runtime.cwd}", "${hydra.job.name}", "${study}",
    "${.study}", "${..study}", "${mine}", "../evil", "/etc/passwd", "file:///etc/passwd", "pkg://os", "&a x", "*a",
    "!!python/object/apply:os.getcwd []", "!!binary YQ==", "_target_", "builtins.print", "hydra", "hydra/launcher",
    "override hydra/job_logging", "submitit_slurm", "searchpath", "_global_", "@hydra", "model@hydra.job", "???", "~",
    "1_000", "0o17", "12:30:45", "2026-01-01", ".inf", "0x1f", "yes", "<<", "=", "\x85", "\ufeff", "r=8,16", "a: b",
    {"_target_": "builtins.print"}, {"env_set": {"A": "B"}}, {"dir": "/tmp"}, ["../evil"], {"override /model": "../x"},
]  # fmt: skip
WORDS = [
    "search.ranks=[2,4]", "decide.margin=2pt", "task.path=x (1).csv", "model=small", "+contest.contenders.a.strategy=b",
    "~contest.contenders.deep", "study=mine", "hydra.launcher.partition=gpu", "tracking.uri=http://u:p@h/", "task=csv",
    "storage=postgresql://u:p@h/d", "workspace=~/runs", "launcher=local", "--cfg=job", "search.strategy=tpe,gp",
    "decide.seeds=range(0,3)", "train.steps=10,20", "lora.target_modules=[q,'v']", "--config-dir=conf", "-m",
]  # fmt: skip
SIGNS = [*"={}[]()'\"\\,:@+~-!#$%^&*?<>|;/ \t\n\x00\x1b\x9b\u202e\ud83d", "${oc.env:SECRET}", "${", "}", "[" * 60]
SIGNS += ["9" * 5000, "_target_=x", "../", "://", "hydra.", "null", "1e999", "x" * 300, "choice(", "glob(*)", "int(x)"]


class Ground:
    """A folder of configurations, the current folder beside it, and a canary."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.conf = folder, folder / "conf"
        make_canary(folder / "canary")
        (folder / "here").mkdir()
        (folder / "evil.yaml").write_text("study: evil\n", encoding="utf-8")
        self.fill()
        (self.conf / "linked").symlink_to(folder / "canary")
        self.before = self.state()

    def state(self) -> dict[str, Any]:
        """What lies in the folder, but for the files that are broken."""
        broken = {str(self.conf / name) for name in FILES}
        return {path: found for path, found in state_of(self.folder).items() if path not in broken}

    def fill(self, **changed: bytes) -> None:
        """Write the whole files, but for those that are named."""
        for name, values in FILES.items():
            (path := self.conf / name).parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(changed.get(name, yaml.safe_dump(values, sort_keys=False).encode()))


def environment_now() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    made = Ground(tmp_path_factory.mktemp("configurations"))
    environment = environment_now()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made.folder / "here")
        patch.setenv("SECRET", SECRET)
        yield made
    assert made.state() == made.before, "something was written"
    assert environment_now() == environment
    shutil.rmtree(made.folder)


def as_yaml(value: Any) -> bytes:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).encode("utf-8", "surrogatepass")


@st.composite
def broken_files(draw: st.DrawFn) -> dict[str, bytes]:
    """Break one or two of the files: their trees, their bytes, or with a text that means something to YAML or Hydra."""
    changed = {}
    for name in draw(st.sets(st.sampled_from(sorted(FILES)), min_size=1, max_size=2)):
        data = as_yaml(draw(broken_tree(FILES[name], TRAPS)))
        if draw(st.integers(0, 3)) == 0:
            trap = str(draw(st.sampled_from(TRAPS))).encode("utf-8", "surrogatepass")
            at = draw(st.integers(0, len(data)))
            data = data[:at] + trap + data[at:]
        if draw(st.integers(0, 3)) == 0:
            data = draw(broken_bytes(data))
        changed[name] = data
    return changed


def kept(config: StudyConfig) -> None:
    assert SECRET not in str(config.to_dict())


@given(changed=broken_files())
@fuzzing(3, 65)
def test_a_file_is_read_or_refused(ground: Ground, changed: dict[str, bytes]) -> None:
    ground.fill(**changed)
    folder = CheckedFolder("fuzz", f"{CheckedFolder.scheme()}://{ground.conf}")
    for name in changed:
        only_refused(folder.load_config, name.removesuffix(".yaml"))


@pytest.mark.filterwarnings("ignore:In .*Defaults list is missing:UserWarning")  # Hydra's own word to the user
@given(changed=broken_files())
@fuzzing(6, 3)
def test_a_folder_is_composed_or_refused(ground: Ground, changed: dict[str, bytes]) -> None:
    ground.fill(**changed)
    only_refused(run_with_hydra, "mine", [f"--config-dir={ground.conf}"], kept)


@st.composite
def broken_words(draw: st.DrawFn) -> list[str]:
    words = draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=3))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(words) - 1))
        at = draw(st.integers(0, len(words[place])))
        cut = at + draw(st.sampled_from([0, 0, 1, 4]))
        words[place] = words[place][:at] + draw(st.sampled_from(SIGNS)) + words[place][cut:]
    return words


@given(words=broken_words())
@fuzzing(2, 98)
def test_words_are_taken_apart_or_refused(ground: Ground, words: list[str]) -> None:
    only_refused(read_typed, words)


@given(words=broken_words())
@fuzzing(5, 5)
def test_words_are_composed_or_refused(ground: Ground, words: list[str]) -> None:
    asks = ("-", "hydra.", "hydra/", "+hydra", "~hydra")  # the user's own word, on which Hydra acts
    ground.fill()
    only_refused(run_with_hydra, "rank_grid", [word for word in words if not word.startswith(asks)], lambda _: None)


def test_the_files_that_are_broken_are_whole(ground: Ground) -> None:
    ground.fill()
    found: list[StudyConfig] = []
    run_with_hydra("mine", [f"--config-dir={ground.conf}"], found.append)
    assert (found[0].study, found[0].train.steps, found[0].decide.margin) == ("mine", 7, 0.02)
