"""Do runs that give a whole rank curve find the knee of separately trained ranks, and do those find it twice?

On each of several subsamples of the sentiment data (other ``split_seed``) ranks 4, 8, 16 and 32 are trained on their
own with seeds 0, 1, 2 and again with 3, 4, 5, at the learning rate that the default grid chooses for all of them.
Beside them, with seeds 0, 1, 2: nested runs that sample the losses of the ranks, nested runs that sum them, sampled
ones of four times the steps (``--long``), and rank 32 cut by singular values. Every curve is of losses on ``decide``,
the mean over the three seeds, and its knee is that of ``rankexp.analysis.statistics.knee``. Run one process a core:

    OMP_NUM_THREADS=1 python bench/knee.py --subsamples 0 1 2 3 4
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from baselines import Setting
from numpy.typing import NDArray
from pack_vs_peft import spec_of

from rankexp.analysis.statistics.knee import knee
from rankexp.models.base import find_model
from rankexp.ranks import RankMap
from rankexp.record.trials import TrialStore
from rankexp.tasks.sentiment import SentimentTask
from rankexp.training.bench import Bench
from rankexp.training.trial import train_trial
from rankexp.trial_spec import Scoring, TrialSpec

RANKS = (4, 8, 16, 32)
SEEDS, OTHERS = (0, 1, 2), (3, 4, 5)
Losses = Mapping[int, NDArray[np.float64]]


class Subsample:
    """One division of the texts into splits, and the trials that were trained on it."""

    def __init__(self, seed: int, folder: Path) -> None:
        base = find_model(name="MiniLM", source="asset", path="minilm")
        data = SentimentTask(split_seed=seed, max_length=48).load(base.processor, lambda _: None)
        self.bench = Bench.load(base, data, torch.device("cpu"))
        self.store = TrialStore(folder)
        self.spec = replace(spec_of(self.bench, Setting(bfloat16=True)), evaluate=(Scoring("decide"),))

    def of_rank(self, rank: int) -> TrialSpec:
        return replace(self.spec, rank_map=RankMap.uniform(self.bench.shapes("all-linear"), rank))

    def losses(self, spec: TrialSpec, seeds: Sequence[int]) -> dict[str, NDArray[np.float64]]:
        """Mean over seeds of each example's loss, by split."""
        trials = [train_trial(self.bench, replace(spec, seed=seed), self.store) for seed in seeds]
        return {
            split.name: np.mean([t.scores(split.name).values["loss"].astype(float) for t in trials], axis=0)
            for split in spec.evaluate
        }

    def alone(self, seeds: Sequence[int]) -> Losses:
        return {rank: self.losses(self.of_rank(rank), seeds)["decide"] for rank in RANKS}

    def curve(self, spec: TrialSpec) -> Losses:
        found = self.losses(replace(spec, evaluate=tuple(Scoring("decide", rank) for rank in RANKS)), SEEDS)
        return {rank: found[f"decide@{rank}"] for rank in RANKS}


def said(losses: Losses) -> dict[str, object]:
    return {"knee": knee(losses), "losses": {rank: round(float(values.mean()), 4) for rank, values in losses.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subsamples", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--long", action="store_true", help="also nested runs of four times the steps")
    options = parser.parse_args()
    for seed in options.subsamples:
        with tempfile.TemporaryDirectory() as folder:
            here = Subsample(seed, Path(folder))
            nested = replace(here.of_rank(RANKS[-1]), method="nested", nested_ranks=RANKS)
            arms = {
                "alone": here.alone(SEEDS),
                "again": here.alone(OTHERS),
                "sampled": here.curve(nested),
                "summed": here.curve(replace(nested, nested_losses="summed")),
                "squeezed": here.curve(here.of_rank(RANKS[-1])),
            }
            if options.long:
                arms["long"] = here.curve(replace(nested, steps=4 * nested.steps))
        print(json.dumps({"subsample": seed, **{name: said(losses) for name, losses in arms.items()}}), flush=True)


if __name__ == "__main__":
    main()
