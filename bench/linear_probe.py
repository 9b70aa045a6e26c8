"""What frozen embeddings alone can do: a converged logistic regression on the packaged model and data.

Beside the head-only reference of a study, which gets no more steps than the adapters. Run:

    python bench/linear_probe.py
"""

from __future__ import annotations

import json
import time

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from rankexp.models.base import Padding, find_model
from rankexp.models.kinds import classifier
from rankexp.tasks.base import TaskData
from rankexp.tasks.examples import Texts
from rankexp.tasks.sentiment import SentimentTask
from rankexp.training.batching import scoring_batches


def embeddings(model: torch.nn.Module, data: TaskData, split: Texts) -> np.ndarray:
    """Mean-pooled last hidden states, shape (examples, hidden)."""
    rows = np.zeros((len(split), model.config.hidden_size), dtype=np.float32)
    with torch.inference_mode():
        for index in scoring_batches(split.sizes):
            batch = data.objective.collate(split, [index], Padding(0), torch.device("cpu"))
            hidden = model.base_model(**batch.inputs).last_hidden_state
            mask = batch.inputs["attention_mask"].unsqueeze(-1)
            rows[index] = ((hidden * mask).sum(1) / mask.sum(1)).numpy()
    return rows


def main() -> None:
    started = time.perf_counter()
    base = find_model(name="MiniLM", source="asset", path="minilm")
    model = base.build(classifier(3))
    data = SentimentTask(max_length=128).load(base.processor, print)
    parts = {name: embeddings(model, data, data.splits[name]) for name in ("train", "decide")}
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    probe.fit(parts["train"], data.splits["train"].labels)
    on_decide = float(probe.score(parts["decide"], data.splits["decide"].labels))
    sizes = {"train": 23_000, "tune": 1, "decide": 1, "test": 1}
    rows = SentimentTask(max_length=128, sizes=sizes).load(base.processor, print).splits["train"]
    folds = cross_val_score(
        probe, embeddings(model, data, rows), rows.labels, groups=rows.group_ids, cv=GroupKFold(5), scoring="accuracy"
    )
    result = {
        "decide_accuracy_from_4800": round(on_decide, 4),
        "rows": len(rows),
        "cross_validated_accuracy": round(float(folds.mean()), 4),
        "folds": [round(float(f), 4) for f in folds],
        "seconds": round(time.perf_counter() - started, 1),
    }
    print("\n".join(f"{name:<26} {value}" for name, value in result.items()))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
