"""Which device and which precision to train with."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext

import psutil
import torch

from rankexp.option_errors import ConfigError

_WORTH_IT = 1.3
_ENOUGH_SECONDS = 0.5
"""Spent on measuring a product; one that takes longer is slow, and needs no second look."""


def find_device(name: str) -> torch.device:
    """Return the device that ``name`` asks for; ``auto`` takes a GPU where there is one.

    Raises:
        ConfigError: The device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    there = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if device.type == "cuda" and (device.index or 0) >= len(there):
        raise ConfigError(f"option 'device' is {name!r}, which is not here; there is {', '.join(['cpu', *there])}.")
    return device


def find_precision(name: str, device: torch.device, dtype: str = "float32") -> tuple[str, float]:
    """Return the precision that ``name`` asks for, and how much faster bfloat16 was where that was measured.

    ``auto`` takes bfloat16 on a GPU that has it, and on a processor where a matrix product runs at least 1.3
    times as fast as in float32. A model whose weights are in bfloat16 is trained in it.

    Args:
        name: ``auto``, ``float32`` or ``bfloat16``.
        device: Where to train.
        dtype: What the model's weights are in.

    Returns:
        ``float32`` or ``bfloat16``, and the measured ratio of speeds (0 where nothing was measured).

    Raises:
        ConfigError: The weights are in less than the precision.
    """
    if dtype == "bfloat16" and name == "float32":
        raise ConfigError(
            "option 'train.precision' is 'float32', and the model's weights are in bfloat16; model.dtype=float32 keeps "
            "them in that."
        )
    if dtype == "bfloat16":
        return "bfloat16", 0.0
    if name != "auto":
        return name, 0.0
    if device.type == "cuda":
        return ("bfloat16" if torch.cuda.is_bf16_supported() else "float32"), 0.0
    speedup = _product_seconds(torch.float32) / _product_seconds(torch.bfloat16)
    return ("bfloat16" if speedup >= _WORTH_IT else "float32"), round(speedup, 2)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Return the context that a forward pass runs in."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def memory_in_use(device: torch.device, process: psutil.Process) -> int:
    """Return the bytes that training takes: on a GPU the most since the last reset, else what ``process`` holds now."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return int(process.memory_info().rss)


def reset_memory_in_use(device: torch.device) -> None:
    """Begin to watch for the most bytes in use on a GPU anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _product_seconds(dtype: torch.dtype) -> float:
    left, right = torch.ones(1024, 384, dtype=dtype), torch.ones(384, 1536, dtype=dtype)
    seconds: list[float] = []
    while len(seconds) < 12 and sum(seconds) < _ENOUGH_SECONDS:
        start = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - start)
    return min(seconds)
