"""Two laws of every adapter around every base: a pack is each of it alone, and a resumed trial is an uninterrupted one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tiny_bench
from test_checkpoint import train

from rankexp.record.trials import TrialStore
from rankexp.training.bench import Bench
from rankexp.training.trial import train_trial
from rankexp.trial_spec import TrialSpec


def check_packed(bench: Bench, folder: Path, *specs: TrialSpec, rtol: float) -> None:
    """Train trials one after another and in one pack, and compare their losses step by step."""
    alone = [train_trial(bench, spec, TrialStore(folder / "alone")) for spec in specs]
    packed = train(bench, TrialStore(folder / "packed"), *specs, size=len(specs))
    for one, job in zip(alone, packed, strict=True):
        mine, theirs = ([row["loss"] for row in t.result.history] for t in (one, job.trial))
        np.testing.assert_allclose(mine, theirs, rtol=rtol)


def check_resumed(bench: Bench, folder: Path, spec: TrialSpec) -> None:
    """Train a trial in one go, and again with an interruption in the middle, and compare the bits of their files."""
    whole = train_trial(bench, spec, TrialStore(folder / "whole"))
    store = TrialStore(folder / "cut")
    train(bench, store, spec, cut=spec.steps // 2)
    (job,) = train(bench, store, spec)
    assert tiny_bench.digests(job.trial) == tiny_bench.digests(whole)
