"""Train one AdaLoRA trial in a process of its own, with a checkpoint at each step; prints what came of it.

Run as: train_adalora.py FOLDER WORKSPACE [STEP], where STEP is the step in which it kills itself, with SIGKILL.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import torch
from tiny_bench import digests, make_bench, make_spec

from rankexp.record.trials import TrialStore
from rankexp.training.trial import train_trial
from rankexp.trial_spec import Pruning


def main(folder: Path, workspace: Path, killed_in: int) -> None:
    torch.set_num_threads(1)
    bench, steps = make_bench(folder), []
    pruning = Pruning(budget=7, first=2, last=12, every=2)
    spec = make_spec(bench, "adalora", rank=4, steps=16, dropout=0.2, pruning=pruning)

    def observe(row: dict[str, float]) -> None:
        steps.append(int(row["step"]))
        if row["step"] == killed_in:
            os.kill(os.getpid(), signal.SIGKILL)

    trial = train_trial(bench, spec, TrialStore(workspace), observe, checkpoint_every=1)
    counts = [row["triplets"] for row in trial.result.history]
    print(json.dumps({"digests": digests(trial), "steps": steps, "triplets": counts}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
