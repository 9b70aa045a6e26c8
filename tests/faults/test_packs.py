"""What happens to one trial of a pack, or to its memory, is no matter of the others.

The faults come from a task of another package: its hook on torch runs out of memory, or makes numbers NaN.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from tiny import rankexp, report_of, study_of, sweep_with_plugin

from rankexp.analysis.study import Study, load_study

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

TASK = """
import math
import torch
from pydantic.dataclasses import dataclass
from torch.nn.modules.module import register_module_forward_pre_hook
from rankexp.options import CHECKED
from rankexp.tasks.tabular import CsvTask

SEEN = {}

@dataclass(frozen=True, config=CHECKED)
class HookedTask:
    '''The texts of a CSV file, and memory for so many rows in training and for all ranks but one.

    Lone trials of rank 4 whose turns are among the poisoned get NaN in training; those of turns that are lost raise.
    '''

    path: str
    rows: int = 10**6
    refused: int = 0
    poisoned: tuple[int, ...] = ()
    lost: tuple[int, ...] = ()

    def load(self, tokenize, say):
        register_module_forward_pre_hook(self.hook)
        return CsvTask(path=self.path).load(tokenize, say)

    def hook(self, module, inputs):
        if not torch.is_grad_enabled() or "LoRALayer" not in type(module).__name__:
            return None
        updates = [update for update in getattr(module, "updates", [module]) if update is not None]
        ranks = [update.lora_A.shape[0] for update in updates]
        if inputs[0].shape[0] > self.rows or self.refused in ranks:
            raise torch.OutOfMemoryError(f"{inputs[0].shape[0]} rows of ranks {ranks} do not fit")
        if ranks == [4] and turn(module) in self.lost:
            raise RuntimeError(f"turn {turn(module)} is lost")
        if ranks == [4] and turn(module) in self.poisoned:
            return (inputs[0] * math.nan,)

def turn(module):
    '''Say of which trial of rank 4 the first layer of the model is; None of the others.'''
    if module.base is not SEEN.setdefault("base", module.base):
        return None
    like = SEEN.setdefault("layers", [])
    if not any(module is other for other in like):
        like.append(module)
    return next(i for i, other in enumerate(like) if other is module)
"""
LONE = ["references.head=[]", "references.full=[]", "train.steps=40"]
PACKED = [*LONE, "pack=4", "decide.seeds=[0]", "decide.verdict=false"]


def sweep_hooked(folder: Path, *more: str, **faults: object) -> subprocess.CompletedProcess[str]:
    return sweep_with_plugin(folder, TASK, "HookedTask", *more, **faults)


def study_in(folder: Path) -> Study:
    return load_study(study_of(folder))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("undisturbed")
    done = sweep_hooked(folder, *PACKED)
    assert done.returncode == 0, done.stderr
    study = study_in(folder)
    assert most_slots(study) > 3
    return study


def most_slots(study: Study) -> float:
    return max(trial.result.cost["slots"] for trial in study.by_key.values() if trial.result.status == "completed")


def assert_equal_within_rounding(study: Study, undisturbed: Study, keys: set[str]) -> None:
    for key in keys:
        one, other = (found.by_key[key].result.metrics for found in (study, undisturbed))
        assert one.keys() == other.keys()
        for split in one:
            assert one[split]["loss"] == pytest.approx(other[split]["loss"], abs=2e-3)


def test_a_pack_that_memory_does_not_hold_is_halved(tmp_path: Path, undisturbed: Study) -> None:
    done = sweep_hooked(tmp_path, *PACKED, rows=2 * 32)
    assert done.returncode == 0, done.stderr
    study = study_in(tmp_path)
    assert most_slots(study) == 2
    assert study.by_key.keys() == undisturbed.by_key.keys()
    assert_equal_within_rounding(study, undisturbed, set(study.by_key))


def test_a_trial_that_memory_does_not_hold_alone_fails_with_the_reason(tmp_path: Path, undisturbed: Study) -> None:
    done = sweep_hooked(tmp_path, *PACKED, refused=4)
    assert done.returncode == 4, done.stderr
    assert "Traceback" not in done.stderr
    rows: list[dict[str, Any]] = report_of(tmp_path)["trials"]
    failed = [row for row in rows if row["rank"] == 4]
    others = {row["key"] for row in rows if row["rank"] != 4}
    assert {row["status"] for row in failed} == {"failed"}
    assert all(row["reason"].startswith("out of memory: 32 rows of ranks [4] do not fit") for row in failed)
    study = study_in(tmp_path)
    assert {study.by_key[key].result.status for key in others} == {"completed"}
    assert_equal_within_rounding(study, undisturbed, others & undisturbed.by_key.keys())
    checked = rankexp(tmp_path, "verify", study.name)
    assert checked.returncode == 4
    assert checked.stdout.count("out of memory") == len(failed)


def test_a_trial_that_diverges_leaves_the_others_of_its_pack_their_bits(tmp_path: Path, undisturbed: Study) -> None:
    done = sweep_hooked(tmp_path, *PACKED, "search.learning_rates=[3e-3,1e30]")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("diverged: the loss was not finite") == 2
    rows = [row for row in report_of(tmp_path)["trials"] if row["phase"] == "screen"]
    assert [(row["status"], row["learning_rate"]) for row in rows].count(("diverged", 1e30)) == 2
    study = study_in(tmp_path)
    healthy = [row["key"] for row in rows if row["status"] == "completed"]
    assert len(healthy) == 2
    for key in healthy:
        one, other = study.by_key[key], undisturbed.by_key[key]
        assert one.result.history == other.result.history
        assert one.result.metrics == other.result.metrics
        assert one.files == other.files
    assert rankexp(tmp_path, "verify", study.name).returncode == 0


def test_a_rank_with_a_seed_that_diverges_twice_is_counted_and_not_chosen(tmp_path: Path) -> None:
    """The second and the fifth trial of rank 4 are the first seeds of its decision, and of the one at half its rate.

    The turn before them is the step that the forecast measures.
    """
    done = sweep_hooked(tmp_path, *LONE, "pack=1", "search.learning_rates=[1e-2]", poisoned=[2, 5])
    assert done.returncode == 0, done.stderr
    doc = report_of(tmp_path)
    rank = doc["ranks"]["4"]
    assert (rank["unstable"], rank["diverged"]) == (True, 1)
    assert doc["chosen_rank"] != 4
    assert doc["status"] != "SETTLED"
    diverged = [row for row in doc["trials"] if row["status"] == "diverged"]
    assert {(row["rank"], row["seed"]) for row in diverged} == {(4, 0)}
    rates = [row["learning_rate"] for row in diverged]
    assert rates == [1e-2, 5e-3]


@pytest.mark.parametrize(("seeds", "decided"), [(3, False), (4, True)])
def test_a_seed_that_fails_at_one_rank_is_used_for_none(tmp_path: Path, seeds: int, decided: bool) -> None:
    """After the forecast's, rank 4 has a turn for its screen; its decision's first seed the next and, again, the last."""
    faults = {"lost": [2, 2 + seeds]}
    done = sweep_hooked(tmp_path, *LONE, "pack=1", "search.learning_rates=[1e-2]", f"decide.seeds={seeds}", **faults)
    assert done.returncode == 4, done.stderr
    doc = report_of(tmp_path)
    failed = [(row["rank"], row["seed"], row["reason"]) for row in doc["trials"] if row["status"] == "failed"]
    assert failed == [(4, 0, f"RuntimeError: turn {2 + seeds} is lost")]
    assert doc["seeds"] == seeds - 1
    assert (doc["status"] in ("SETTLED", "SAFE")) == decided
    assert decided or doc["status"] == "INSUFFICIENT"


def test_a_task_that_fails_in_the_measured_step_fails_in_its_trials_and_not_before(tmp_path: Path) -> None:
    done = sweep_hooked(tmp_path, *LONE, "pack=1", "search.learning_rates=[1e-2]", lost=[0])
    assert done.returncode == 0, done.stderr
    assert "how long is not known, since a step of the largest rank failed (turn 0 is lost)" in done.stderr
    assert all(row["status"] == "completed" for row in report_of(tmp_path)["trials"])


def test_where_every_trial_diverges_the_verdict_is_insufficient(tmp_path: Path) -> None:
    done = sweep_hooked(tmp_path, *LONE, "pack=1", "search.learning_rates=[1e30]")
    assert done.returncode == 0, done.stderr
    doc = report_of(tmp_path)
    assert {row["status"] for row in doc["trials"]} == {"diverged"}
    assert doc["chosen_rank"] is None
    assert doc["status"] == "INSUFFICIENT"
