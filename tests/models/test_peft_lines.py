"""A study on a half-precision folder of other labels, through to the README's lines and `verify --peft`."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from architectures import CASES, save, write_texts
from tiny import rankexp
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer

from rankexp.analysis.study import load_study
from rankexp.report.peft_config import lora_config

ROOT = Path(__file__).parents[2]
OPTIONS = [
    "search.ranks=[2]", "search.learning_rates=[1e-2]", "search.widen=0", "decide.seeds=3", "references.head=[]",
    "references.full=[]", "train.steps=4", "train.batch_size=8", "train.precision=float32", "tracking=none", "threads=1",
    "jobs=1", "study=s", "task=csv", "task.path=texts.csv", "model=local", "model.path=model",
]  # fmt: skip


def study_of(name, folder):
    save(CASES[name], folder / "model")
    write_texts(folder / "texts.csv", CASES[name].labels, rows=80)
    done = rankexp(folder, "sweep", *OPTIONS)
    assert done.returncode == 0, done.stderr
    (study,) = (folder / "runs/studies").glob("s-*")
    return study, done


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of transformers and PEFT, about what they are given
def test_the_readmes_lines_give_the_recorded_scores_of_a_half_precision_folder_with_other_labels(tmp_path, monkeypatch):
    study, _ = study_of("half precision and five labels", tmp_path)
    (block,) = (b for b in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S) if "Peft" in b)
    lines = block.replace("runs/studies/rank_grid-0123abcd", f"runs/studies/{study.name}")
    lines = lines.replace("models/my-encoder", "model").replace("chosen_trials(8)", "chosen_trials(2)")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(lines, names)
    recorded = names["study"].chosen_trials(2)[0].scores("decide")
    lines = Path("texts.csv").read_text(encoding="utf-8").splitlines()
    rows = {f"row-{i}": row for i, row in enumerate(csv.DictReader(lines), 2)}
    tokenizer, found = AutoTokenizer.from_pretrained("model"), []
    for example in recorded.example_ids.tolist():
        with torch.no_grad():
            logits = names["model"](**tokenizer(rows[example]["text"], return_tensors="pt")).logits
        found.append(cross_entropy(logits, torch.tensor([names["labels"].index(rows[example]["label"])])).item())
    np.testing.assert_allclose(found, recorded.values["loss"], rtol=1e-5, atol=1e-5)
    verified = rankexp(tmp_path, "verify", "s", "--peft")
    assert verified.returncode == 0, verified.stderr
    assert "100.0% agree: as recorded" in verified.stdout


@pytest.mark.thorough
@pytest.mark.slow
def test_a_study_of_a_model_without_pooler_says_so_and_exports_it(tmp_path):
    study, done = study_of("bert without pooler", tmp_path)
    assert "lack bert.pooler.dense: drawn at random" in done.stdout + done.stderr
    record = json.loads((study / "study.json").read_text())
    assert record["model"]["drawn"] == ["bert.pooler.dense"]
    assert record["model"]["padding"] == {"token": 0, "side": "right"}
    assert record["notes"]["read_back"]["passed"] is True
    read = load_study(study)
    config = lora_config(read, read.chosen_trials(2)[0])
    assert config["modules_to_save"] == ["classifier", "bert.pooler.dense"]
    report = json.loads((study / "report/report.json").read_text())
    passed = {check["name"]: check["passed"] for check in report["validity"]}
    assert passed["The adapter on disk gives its recorded scores"] is True
    again = rankexp(tmp_path, "sweep", *OPTIONS)
    assert again.returncode == 0
    assert "reading the adapter" not in again.stdout + again.stderr
    assert "trained   0 trials" in again.stdout
