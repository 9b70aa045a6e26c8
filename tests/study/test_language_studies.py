"""Whole studies of a tiny causal language model: every strategy screens and takes part, through the real session."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny_language import MODELS, write_rows

from rankexp.analysis.study import load_study
from rankexp.candidates import BASE, HEAD
from rankexp.config import StudyConfig
from rankexp.options import parse, plugins
from rankexp.progress import Display
from rankexp.strategies.base import make_strategy
from rankexp.study.session import resume_study, run_study

pytestmark = pytest.mark.slow

SEARCHES = {
    "grid": {"alphas": [8, 16]},
    "halving": {"first_rung": 2},
    "tpe": {"trials": 5},
    "gp": {"trials": 5},
    "pareto": {"trials": 5},
    "optuna": {"trials": 5},
    "nested": {},
    "squeeze": {},
    "rule_of_thumb": {},
    "capacity_rule": {},
}
"""What each strategy that finds ranks is asked as a screen."""
ALLOCATORS = ("uniform", "by_depth", "by_module", "pattern", "gradient_spectrum", "activation_spectrum", "fisher")
CONTENDERS = {
    **{name: {"strategy": name} for name in ("rule_of_thumb", "capacity_rule", "grid", "optuna", "nested", "squeeze")},
    "summed": {"strategy": "nested", "losses": "summed"},
    "adalora": {"strategy": "adalora"},
    **{name: {"strategy": "allocated", "allocator": {"name": name}} for name in ALLOCATORS if name != "pattern"},
    "pattern": {"strategy": "allocated", "allocator": {"name": "pattern", "r": 2, "rank_pattern": {"q_proj": 4}}},
    "dora": {"strategy": "variant", "method": "dora"},
    "pissa": {"strategy": "variant", "initialisation": "pissa"},
    "eva": {"strategy": "variant", "initialisation": "eva"},
    "rslora": {"strategy": "variant", "scaling": "rslora"},
    "loraplus": {"strategy": "variant", "loraplus_lr_ratio": 4},
}


def study_of(folder: Path, **changes: dict[str, object]) -> StudyConfig:
    """A study of seconds: ranks 2 and 4 of a tiny Llama, decided on by the loss of a token."""
    rows = folder / "rows.jsonl"
    if not rows.exists():
        write_rows(rows)
    values = {
        "study": "language",
        "workspace": str(folder / "runs"),
        "device": "cpu",
        "jobs": 1,
        "threads": 1,
        "model": {"name": "tiny", "source": "config", "architecture": MODELS["llama"]},
        "task": {"name": "sft", "path": str(rows)},
        "train": {"steps": 8, "batch_size": 16, "precision": "float32", "warmup_steps": 1},
        "search": {"ranks": [2, 4], "learning_rates": [3e-3, 1e-2], "widen": 0, **changes.pop("search", {})},
        "decide": {"seeds": 3},
        "references": {"head": [1e-2]},
        "tracking": {"name": "none"},
        **changes,
    }
    return parse(StudyConfig, values)


def run(config: StudyConfig):
    return run_study(config, Display(io.StringIO())).study


def test_every_strategy_is_tried_here():
    named = {options["strategy"] for options in CONTENDERS.values()} | set(SEARCHES)
    assert named == set(plugins("strategy"))
    for name, options in SEARCHES.items():
        assert make_strategy({"strategy": name, **options}, "").finds_ranks
    assert set(ALLOCATORS) == set(plugins("allocator"))


@pytest.mark.parametrize("name", SEARCHES)
def test_every_strategy_screens_a_language_model(tmp_path, name):
    study = run(study_of(tmp_path, search={"strategy": name, **SEARCHES[name]}))
    assert study.complete
    assert set(study.ranks) <= {2, 4}
    assert {trial.result.status for trial in study.by_key.values()} == {"completed"}
    assert study.config.decide.margin == "2%"
    assert study.completed(BASE)
    assert not study.completed(HEAD)
    assert study.gain is not None
    assert study.margin == pytest.approx(0.02 * (study.gain.best - study.gain.start))


def test_every_contender_is_tuned_and_compared(tmp_path):
    config = study_of(tmp_path, contest={"contenders": CONTENDERS, "rank": 4, "trials": 2})
    study = run(config)
    report = json.loads((study.store.folder / "report" / "report.json").read_text(encoding="utf-8"))
    assert set(report["contest"]["rows"]) == {"r=4", *CONTENDERS}
    assert all(row["seeds"] == 3 for row in report["contest"]["rows"].values())
    methods = {name: study.completed(name)[0].spec.method for name in study.contenders}
    assert (methods["adalora"], methods["dora"]) == ("adalora", "dora")
    assert "accuracy" not in (study.store.folder / "report" / "report.html").read_text(encoding="utf-8")


def test_references_full_fine_tuning_and_subspaces_among_them_are_trained(tmp_path):
    references = {"head": [1e-2], "full": [1e-3], "subspace": [1e-1], "dimensions": [10, 100]}
    study = run(study_of(tmp_path, references=references))
    report = json.loads((study.store.folder / "report" / "report.json").read_text(encoding="utf-8"))
    assert set(report["references"]) == {"base", "full"}
    assert report["intrinsic"] is not None
    assert report["gain"]["start"] == pytest.approx(study.head_score)


IN_A_FRESH_PROCESS = """
import json, sys
import numpy as np
from peft import PeftModel
from tiny_language import make_base
from rankexp.models.kinds import CAUSAL
from rankexp.tasks.sft.task import SftTask
from rankexp.training.bench import Bench
from rankexp.training.scoring import score
import torch
name, rows, adapter = sys.argv[1:]
base = make_base(name)
data = SftTask(path=rows).load(base.tokenize, lambda _: None)
bench = Bench.load(base, data, torch.device("cpu"))
model = PeftModel.from_pretrained(base.build(CAUSAL), adapter).eval()
print(json.dumps(score(model, bench.collator(data.splits["decide"]), precision="float32").values["loss"].tolist()))
"""


def test_an_adapter_read_by_peft_in_a_fresh_process_gives_every_recorded_loss(tmp_path):
    study = run(study_of(tmp_path))
    trial = study.chosen_trials(4)[0]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IN_A_FRESH_PROCESS, "llama", str(tmp_path / "rows.jsonl"), trial.adapter],
        cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True, timeout=240,
    )  # fmt: skip
    again = np.array(json.loads(done.stdout.splitlines()[-1]))
    np.testing.assert_allclose(again, trial.scores("decide").values["loss"], rtol=1e-4, atol=1e-6)


def test_a_study_whose_trials_are_lost_gives_the_same_bits_again(tmp_path):
    study = run(study_of(tmp_path))
    before = {key: trial.scores("tune").values["loss"] for key, trial in study.by_key.items()}
    tensors = load_file(study.chosen_trials(4)[0].adapter / "adapter_model.safetensors")
    for key in list(before)[::2]:
        shutil.rmtree(study.by_key[key].folder)
    again = resume_study(study.store.folder, Display(io.StringIO())).study
    for key, values in before.items():
        np.testing.assert_array_equal(again.by_key[key].scores("tune").values["loss"], values)
    for name, value in load_file(
        load_study(study.store.folder).chosen_trials(4)[0].adapter / "adapter_model.safetensors"
    ).items():
        np.testing.assert_array_equal(value, tensors[name])
