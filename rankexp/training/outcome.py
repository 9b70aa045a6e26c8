"""What goes into the record of a trial besides its scores and adapter."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version

import torch

from rankexp.analysis.scoring import all_means_of
from rankexp.metrics import Metric
from rankexp.record.scores import Scores
from rankexp.record.trial import TrialResult
from rankexp.training.out_of_memory import is_out_of_memory
from rankexp.training.slot import Slot

OF_A_TRIAL = (RuntimeError, ValueError, ArithmeticError, LookupError, TypeError)
"""What training a trial may raise, in a task's code or the device's, without anything being wrong with the others."""


def result_of(
    slot: Slot,
    scores: dict[str, Scores],
    reason: str,
    cost: dict[str, float],
    device: torch.device,
    metrics: Iterable[Metric],
) -> TrialResult:
    """Say what came of a trial that was trained; ``reason`` says why it diverged, and is empty where it did not."""
    return TrialResult(
        status="diverged" if reason else "completed",
        reason=reason,
        metrics={split: all_means_of(found, metrics) | {"examples": len(found)} for split, found in scores.items()},
        history=tuple(slot.history),
        cost=cost,
        environment=environment_of(device),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def failure_of(error: BaseException, device: torch.device) -> TrialResult:
    """Say why a trial could not be trained, in the first line of what was raised."""
    kind = "out of memory" if is_out_of_memory(error) else type(error).__name__
    said = str(error).strip().splitlines()
    return TrialResult(
        status="failed",
        reason=f"{kind}: {said[0]}" if said else kind,
        environment=environment_of(device),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def environment_of(device: torch.device) -> dict[str, str]:
    """Return the versions, the device and the number of threads that training here uses."""
    import transformers

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": f"{device.type} ({name})",
        "threads": str(torch.get_num_threads()),
        **({"sacrebleu": version("sacrebleu")} if "sacrebleu" in sys.modules else {}),
    }
