"""Load each adapter of a decide step with PeftModel and compare with what the study recorded. Run.

python bench/peft_reproduces.py runs/studies/rank_grid-0123abcd
"""

from __future__ import annotations

import json
import sys

import numpy as np
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

import rankexp
from rankexp.assets import asset_folder
from rankexp.models import find_model
from rankexp.tasks.base import make_task
from rankexp.training.scoring import score


def main(path: str) -> None:
    study = rankexp.load_study(path)
    config = study.record.config
    found = find_model(**{**config["model"], "say": print})
    folder = asset_folder(config["model"]["path"]) if config["model"]["source"] == "asset" else config["model"]["path"]
    data = make_task(config["task"]).load(found.tokenize, print)
    agreement = {}
    for rank in study.ranks:
        for trial in study.chosen_trials(rank):
            base = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(data.labels))
            model = PeftModel.from_pretrained(base, trial.adapter)
            scores = score(
                model,
                data.splits["decide"],
                precision=trial.spec.precision,
                pad_token_id=found.pad_token_id,
                device=torch.device("cpu"),
            )
            recorded = trial.scores("decide")
            assert np.array_equal(recorded.example_ids, scores.example_ids)
            agreement[trial.key] = float((recorded.correct == scores.correct).mean())
            print(f"r={rank:<3} seed {trial.spec.seed}  {trial.key}  {agreement[trial.key]:.4%}", flush=True)
    print(json.dumps({"trials": len(agreement), "lowest": min(agreement.values()), "precision": trial.spec.precision}))


if __name__ == "__main__":
    main(sys.argv[1])
