"""What workers on one machine are given: GPUs in turn, or a share of the cores."""

from __future__ import annotations

import os
from functools import cache

import pytest
import torch
from tiny import OPTIONS

from rankexp.cli.compose import run_with_hydra
from rankexp.cli.local_workers import devices_of
from rankexp.config import StudyConfig
from rankexp.option_errors import ConfigError
from rankexp.study.worker import shares

pytestmark = pytest.mark.slow


@cache
def configured(*options: str) -> StudyConfig:
    found: list[StudyConfig] = []
    known = [option for option in OPTIONS if not option.startswith(("device=", "jobs=", "threads="))]
    run_with_hydra("rank_grid", [*known, "task.path=x.csv", "launcher=local", *options], found.append)
    return found[0]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [("", ["0", "1"]), ("3,5", ["3", "5"]), ("0,1,9", ["0", "1"]), ("GPU-a,GPU-b", ["GPU-a", "GPU-b"])],
)
def test_each_worker_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch, visible: str, expected: list[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert devices_of(configured("workers=2")) == expected
    assert devices_of(configured("workers=3", "device=cpu")) == [None] * 3
    for words in (["workers=3"], ["workers=2", "device=cuda:1"]):
        with pytest.raises(ConfigError, match="or set pack to a number"):
            devices_of(configured(*words))
    assert devices_of(configured("workers=3", "pack=4")) == [*expected, expected[0]]
    assert devices_of(configured("workers=2", "pack=4", "device=cuda:1")) == [None, None]


@pytest.mark.parametrize(
    ("options", "workers", "expected"),
    [
        ([], 1, (8, 1)),
        ([], 2, (4, 1)),
        (["jobs=1"], 2, (1, 4)),
        (["threads=2"], 2, (4, 2)),
        (["jobs=3", "threads=1"], 20, (3, 1)),
        ([], 20, (1, 1)),
    ],
)
def test_workers_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, options: list[str], workers: int, expected: tuple[int, int]
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert shares(configured("device=cpu", *options), workers) == expected
