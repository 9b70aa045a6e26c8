"""Learning rates that a screen locates beside the best ones, known from many seeds that it never sees.

A tiny BERT of random weights learns texts whose label hangs on two of their words. The best rate of each rank is the
vertex of the mean losses on tune of 20 seeds at a dense grid of rates. Then 20 screens locate it with one seed each.
Run (about five minutes):

    python bench/planted_rates.py
"""

from __future__ import annotations

import argparse
import json
import math
import random
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import torch

from rankexp.analysis.rates import tuned_rates
from rankexp.analysis.screen import ScreenRow, best_rate
from rankexp.candidates import CandidateName
from rankexp.models.base import find_model
from rankexp.ranks import RankMap
from rankexp.record.trials import TrialStore
from rankexp.strategies.grid import Grid
from rankexp.strategies.setting import Candidate
from rankexp.strategies.surface_grid import SurfaceGrid
from rankexp.tasks.tabular import CsvTask
from rankexp.training.bench import Bench
from rankexp.training.trial import train_trial
from rankexp.trial_spec import Scoring, TrialSpec

RANKS, COARSE, STEP = (2, 4, 8, 16), (3e-3, 1e-2, 3e-2), 0.25
DENSE = np.arange(-2.55, -1.3, 0.125)
ARCHITECTURE = {
    "model_type": "bert", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "vocab_size": 500, "max_position_embeddings": 32,
}  # fmt: skip
WORDS = {"pos": ["good", "great", "fine", "lovely", "superb"], "neg": ["bad", "awful", "poor", "sad", "ugly"]}


@cache
def bench() -> Bench:
    """The model and the texts, the same in every process."""
    torch.set_num_threads(1)
    folder, draw, texts = Path(tempfile.mkdtemp()), random.Random(0), {}
    while len(texts) < 4000:
        label = draw.choice(["pos", "neg"])
        words = [*draw.choices([f"w{i}" for i in range(30)], k=draw.randint(2, 5)), *draw.choices(WORDS[label], k=2)]
        draw.shuffle(words)
        texts.setdefault(" ".join(words), label)
    (folder / "texts.csv").write_text("text,label\n" + "".join(f"{t},{label}\n" for t, label in texts.items()))
    base = find_model(name="tiny", source="config", path=None, architecture=ARCHITECTURE)
    data = CsvTask(path=folder / "texts.csv").load(base.tokenize, lambda _: None)
    return Bench.load(base, data, torch.device("cpu"))


def loss(job: tuple[int, float, int, int]) -> float:
    """Train a rank at a rate with a seed, and return its mean loss on tune."""
    rank, rate, seed, steps = job
    shapes = bench().shapes("all-linear")
    spec = TrialSpec(
        model=bench().base.fingerprint, data=bench().data.fingerprint, task="csv", method="lora",
        rank_map=RankMap.uniform(shapes, rank), learning_rate=rate, seed=seed, steps=steps, batch_size=32,
        warmup_steps=steps // 4, evaluate=(Scoring("tune"),),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        return float(train_trial(bench(), spec, TrialStore(Path(folder))).result.metrics["tune"]["loss"])


def vertices(losses: np.ndarray) -> dict[int, float]:
    """Decimal logarithm of each rank's best rate, by a parabola through the mean losses about the least of them."""
    found = {}
    for rank, means in zip(RANKS, losses.mean(axis=2), strict=True):
        near = np.abs(DENSE - DENSE[means.argmin()]) < 0.3
        a, b, _ = np.polyfit(DENSE[near], means[near], 2)
        found[rank] = -b / (2 * a)
    return found


def screened(pool: ProcessPoolExecutor, seed: int, steps: int, *, surface: bool) -> tuple[list[float], int]:
    """Decimal logarithm of the rate that a screen goes on with, for each rank; and its number of runs."""
    candidates = tuple(map(Candidate.of_rank, RANKS))
    if surface:
        rounds = SurfaceGrid(candidates, COARSE, (16.0,), (None,), 1, STEP).rounds()
    else:
        rounds = Grid(candidates, COARSE, (16.0,), 1).rounds()
    rows: list[ScreenRow] = []
    asked = next(rounds)
    while True:
        losses = pool.map(loss, [(s.rank or 0, s.learning_rate, seed, steps) for s in asked])
        answers = [
            ScreenRow(s.candidate, s.rank, s.learning_rate, s.alpha, "completed", found)
            for s, found in zip(asked, losses, strict=True)
        ]
        rows += answers
        try:
            asked = rounds.send(answers)
        except StopIteration:
            break
    tuned = tuned_rates(rows, STEP) if surface else best_rate(rows)
    return [math.log10(tuned[CandidateName.of_rank(rank)].learning_rate) for rank in RANKS], len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    began = time.perf_counter()
    with ProcessPoolExecutor(2) as pool:
        jobs = [(r, 10**x, seed, options.steps) for r in RANKS for x in DENSE for seed in range(options.seeds)]
        losses = np.array(list(pool.map(loss, jobs, chunksize=8))).reshape(len(RANKS), len(DENSE), options.seeds)
        for rank, table in zip(RANKS, losses, strict=True):
            print(rank, " ".join(f"{x:.3f}: {m:.4f}" for x, m in zip(DENSE, table.mean(axis=1), strict=True)))
        best = vertices(losses)
        print("best rates", {rank: round(10**x, 5) for rank, x in best.items()})
        result = {"seed_sd_at_best": round(float(losses.std(axis=2, ddof=1).min(axis=1).mean()), 4)}
        for name, surface in (("surface", True), ("best of the grid", False)):
            found = [screened(pool, 1000 + n, options.steps, surface=surface) for n in range(options.studies)]
            off = np.array([rates for rates, _ in found]) - np.array([best[rank] for rank in RANKS])
            result[name] = {
                "runs": round(float(np.mean([runs for _, runs in found])), 1),
                "decades_off": {"bias": round(float(off.mean()), 3), "sd": round(float(off.std()), 3)},
                "within_a_quarter_step": round(float((np.abs(off) <= 2 * STEP / 4).mean()), 3),
                "studies_with_all_ranks_within": round(float((np.abs(off) <= 2 * STEP / 4).all(axis=1).mean()), 3),
            }
            print(name, result[name], flush=True)
    print(json.dumps({**result, "seconds": round(time.perf_counter() - began)}))


if __name__ == "__main__":
    main()
