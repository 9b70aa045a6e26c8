"""Whole studies of a tiny causal language model: every strategy screens and takes part, through the real session."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tiny_bench
from safetensors.numpy import load_file
from thorough import later_but
from tiny_language import MODELS, make_bench, study_of

from rankexp.analysis.study import load_study
from rankexp.candidates import BASE, HEAD
from rankexp.config import StudyConfig
from rankexp.models.kinds import CAUSAL
from rankexp.option_errors import ConfigError
from rankexp.options import plugins
from rankexp.progress import Display
from rankexp.record.trials import TrialStore
from rankexp.report.peft_config import as_python, lora_config
from rankexp.strategies.base import make_strategy
from rankexp.study.session import resume_study, run_study
from rankexp.training.trial import train_trial

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


def run(config: StudyConfig):
    return run_study(config, Display(io.StringIO())).study


def test_every_strategy_is_tried_here():
    named = {options["strategy"] for options in CONTENDERS.values()} | set(SEARCHES)
    assert named == set(plugins("strategy"))
    for name, options in SEARCHES.items():
        assert make_strategy({"strategy": name, **options}, "").finds_ranks
    assert set(ALLOCATORS) == set(plugins("allocator"))


@pytest.fixture
def without_report(monkeypatch):
    """Leave out what takes most of the time of so small a study, and is looked at elsewhere."""
    monkeypatch.setattr("rankexp.study.session.write_report", lambda study: study.store.folder / "report/report.html")


@pytest.mark.usefixtures("without_report")
@pytest.mark.parametrize("name", later_but({"nested"}, SEARCHES))
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


ONE_OF_EACH = ("rule_of_thumb", "grid", "optuna", "nested", "summed", "squeeze", "adalora", "fisher", "dora", "eva")
"""Every strategy, with one allocator and two kinds of LoRA."""


@pytest.mark.thorough
@pytest.mark.parametrize("names", [ONE_OF_EACH, tuple(CONTENDERS)])
def test_every_contender_is_tuned_and_compared(tmp_path, names):
    contenders = {name: CONTENDERS[name] for name in names}
    study = run(study_of(tmp_path, contest={"contenders": contenders, "rank": 4, "trials": 2}))
    report = json.loads((study.store.folder / "report" / "report.json").read_text(encoding="utf-8"))
    assert set(report["contest"]["rows"]) == {"r=4", *names}
    assert all(row["seeds"] == 3 for row in report["contest"]["rows"].values())
    methods = {name: study.completed(name)[0].spec.method for name in study.contenders}
    assert (methods["adalora"], methods["dora"]) == ("adalora", "dora")
    assert "accuracy" not in (study.store.folder / "report" / "report.html").read_text(encoding="utf-8")


@pytest.mark.thorough
def test_references_full_fine_tuning_and_subspaces_among_them_are_trained(tmp_path):
    references = {"head": [1e-2], "full": [1e-3], "subspace": [1e-1], "dimensions": [10, 100]}
    study = run(study_of(tmp_path, references=references))
    report = json.loads((study.store.folder / "report" / "report.json").read_text(encoding="utf-8"))
    assert set(report["references"]) == {"base", "full"}
    assert report["gain"]["start"] == pytest.approx(study.head_score)
    base, full = (np.mean(means_by_hand(study, name)) for name in ("base", "full"))
    assert report["references"]["base"]["mean"] == pytest.approx(base, abs=1e-6)
    for rank in (2, 4):
        own = means_by_hand(study, f"r={rank}")
        assert report["ranks"][str(rank)]["mean"] == pytest.approx(np.mean(own), abs=1e-6)
        assert report["exponential"]["ranks"][str(rank)] == pytest.approx(np.exp(-np.mean(own)), rel=1e-6)
        share = (own[0] - base) / (full - base)  # the references have the first seed alone
        assert report["recovered"]["ranks"][str(rank)] == pytest.approx(share, abs=1e-5)
    found, target = report["intrinsic"], base + 0.9 * (full - base)
    means = {n: np.mean(means_by_hand(study, f"d={n}")) for n in (10, 100)}
    assert found["gain_target"] == pytest.approx(target, abs=1e-6)
    assert found["d90_of_gain"] == next((n for n, mean in means.items() if mean >= target), None)
    assert {int(n): mean for n, mean in found["dimensions"].items()} == pytest.approx(means, abs=1e-6)


def means_by_hand(study, candidate):
    """Minus the loss of a target token of *decide*, of each seed, from the files of its trials alone."""
    planned = [item for item in study.record.planned if item.candidate == candidate and item.role == "evidence"]
    assert planned
    means = []
    for item in planned:
        with np.load(study.store.workspace / "trials" / item.key / "scores" / "decide.npz") as file:
            losses, tokens = file["value.loss"].astype(np.float64), file["weight.loss"].astype(np.float64)
        means.append(-(losses * tokens).sum() / tokens.sum())
    return means


IN_A_FRESH_PROCESS = """
import json, sys
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
asked = json.load(open(sys.argv[1]))
for base, adapter, examples in asked:
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()
    with torch.no_grad():
        losses = [model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss.item() for ids, labels in examples]
    print(json.dumps(losses))
"""
"""Knows transformers and PEFT, and nothing of rankexp."""


@pytest.mark.thorough
def test_adapters_read_by_peft_in_a_fresh_process_give_every_recorded_loss(tmp_path):
    names, asked, recorded = ["llama", "qwen2", "gemma3", "gpt2", "qwen3_moe"], [], []
    for name in names:
        bench = make_bench(tmp_path, name)
        spec = replace(tiny_bench.make_spec(bench, rank=4, learning_rate=1e-2, steps=12), task="sft")
        trial = train_trial(bench, spec, TrialStore(tmp_path / "runs"))
        bench.base.build(CAUSAL).save_pretrained(tmp_path / name)
        decide = bench.data.splits["decide"]
        labels = [np.where(targets, ids, -100) for ids, targets in zip(decide.tokens, decide.targets, strict=True)]
        examples = [(ids.tolist(), own.tolist()) for ids, own in zip(decide.tokens, labels, strict=True)]
        asked.append((str(tmp_path / name), str(trial.adapter), examples))
        recorded.append(trial.scores("decide").values["loss"])
    (tmp_path / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IN_A_FRESH_PROCESS, tmp_path / "asked.json"],
        cwd=tmp_path, capture_output=True, text=True, check=True, timeout=240,
    )  # fmt: skip
    found = list(map(json.loads, done.stdout.splitlines()[-len(names) :]))
    for name, again, before in zip(names, found, recorded, strict=True):
        np.testing.assert_allclose(again, before, rtol=1e-4, atol=1e-6, err_msg=name)


def test_a_study_that_cannot_learn_stops_after_its_first_seeds(tmp_path):
    """The model as it is gets scored first, so that there is something to be no better than."""
    hopeless = {"strategy": "grid", "learning_rates": [1e-12]}
    study = run(study_of(tmp_path, search=hopeless, train={"steps": 1, "batch_size": 4, "warmup_steps": 0}))
    assert study.nothing_learned
    assert study.record.notes["stopped"] == "nothing learned"
    decided = [item for item in study.record.planned if item.phase == "decide"]
    assert {item.candidate for item in decided} == {"r=2", "r=4"}
    assert len(decided) == 2
    doc = json.loads((study.store.folder / "report" / "report.json").read_text(encoding="utf-8"))
    assert doc["summary"]["meaning"] == "No run is better than the model as it is."


def test_the_report_of_a_language_model_says_what_its_rows_are_and_speaks_of_no_head(tmp_path):
    study = run(study_of(tmp_path))
    report = study.store.folder / "report"
    for name in ("report.html", "report.md"):
        text = (report / name).read_text(encoding="utf-8")
        assert "of 240 rows 240 are used" in text
        assert "of all tokens are learned" in text
        assert "Perplexity on decide: the model as it is " in text
        assert "each target token counted once" in text
        for word in ("the head", "head only", "Head-only", "accuracy"):
            assert word not in text, word
    assert study.record.said_before[0].startswith("of 240 rows")
    assert any(line.startswith("trials ") for line in study.record.said_before)


@pytest.mark.thorough
@pytest.mark.usefixtures("without_report")
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


@pytest.mark.thorough
@pytest.mark.usefixtures("without_report")
def test_what_is_trained_beside_lora_is_said_read_back_and_part_of_the_config_to_paste(tmp_path):
    said = io.StringIO()
    config = study_of(tmp_path, lora={"modules_to_save": ["model.norm"], "trainable_token_indices": [82, 68]})
    study = run_study(config, Display(said)).study
    assert "trained beside LoRA: the module model.norm, the embeddings of 2 tokens" in said.getvalue()
    assert study.record.notes["read_back"]["passed"]
    assert study.store.folder != study_of(tmp_path).study_folder
    pasted = lora_config(study, study.chosen_trials(4)[0])
    assert (pasted["modules_to_save"], pasted["trainable_token_indices"]) == (["model.norm"], [68, 82])
    assert "trainable_token_indices=[68, 82]," in as_python(pasted, 1e-3)


@pytest.mark.usefixtures("without_report")
def test_a_model_that_does_not_go_into_packs_is_not_tried_in_one(tmp_path):
    model = {"name": "tiny", "source": "config", "architecture": MODELS["gpt2"]}
    study = run(study_of(tmp_path, model=model, lora={"trainable_token_indices": [82]}, pack=3))
    assert study.complete
    assert {trial.result.cost["slots"] for trial in study.by_key.values()} <= {0, 1}


@pytest.mark.usefixtures("without_report")
@pytest.mark.parametrize(
    ("contender", "named"),
    [
        ({"strategy": "variant", "method": "dora"}, "dora"),
        ({"strategy": "variant", "initialisation": "eva"}, "eva"),
        ({"strategy": "allocated", "allocator": {"name": "activation_spectrum"}}, "activation_spectrum"),
    ],
)
def test_what_needs_inputs_that_are_numbers_is_refused_around_a_table_before_anything_is_trained(
    tmp_path, contender, named
):
    config = study_of(
        tmp_path,
        lora={"target_modules": ["embed_tokens", "q_proj"]},
        contest={"contenders": {"x": contender}, "rank": 2, "trials": 2},
    )
    with pytest.raises(ConfigError, match=f"embed_tokens, a table of embeddings, around which {named}"):
        run_study(config, Display(io.StringIO()))
    assert not list((tmp_path / "runs" / "trials").glob("*/result.json"))
