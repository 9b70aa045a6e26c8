"""One trial from its spec to its record: prepare the model, train, score, write."""

from __future__ import annotations

import copy
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_model, save_model
from torch import nn

from rankexp.lora.inject import eject, inject, target_shapes, trainable_parameters
from rankexp.lora.layer import LoRALinear
from rankexp.lora.peft_format import load_adapter, save_adapter
from rankexp.models import BaseModel, head_names, reset_head
from rankexp.options import ConfigError
from rankexp.ranks import TrialSpec
from rankexp.record import Scores, Trial, TrialResult, TrialStore
from rankexp.tasks.base import TaskData
from rankexp.training.loop import Observe, Training, train
from rankexp.training.scoring import score

_EVIDENCE_SPLIT = "decide"


@dataclass(frozen=True)
class Bench:
    """One base model in memory and the data of one task: what every trial of a study shares.

    Attributes:
        base: The base model as it was found.
        model: Its weights with a new head, on ``device``, frozen between trials.
        data: The task's data.
        device: Where to train.
    """

    base: BaseModel
    model: nn.Module
    data: TaskData
    device: torch.device

    @classmethod
    def load(cls, base: BaseModel, data: TaskData, device: torch.device) -> Bench:
        """Load the base model onto the device."""
        model: Any = base.build(len(data.labels)).to(device).requires_grad_(False)
        positions = getattr(model.config, "max_position_embeddings", None)
        longest = max(int(split.lengths.max()) for split in data.splits.values())
        if positions and longest > positions:
            raise ConfigError(
                f"the longest text has {longest} tokens and the model takes {positions}; lower task.max_length."
            )
        if device.type == "cpu":
            model.set_attn_implementation("eager")  # the backward pass of the fused kernel is slower there
        return cls(base, model, data, device)

    def copy(self) -> Bench:
        """Return a bench with a model of its own."""
        return replace(self, model=copy.deepcopy(self.model))

    @property
    def head(self) -> tuple[str, ...]:
        """Names of the modules of the head."""
        return head_names(self.model)

    def shapes(self, targets: str | list[str]) -> dict[str, tuple[int, int]]:
        """Names and (in, out) of the layers that ``targets`` selects.

        Raises:
            ValueError: A target selects nothing.
        """
        return target_shapes(self.model, targets, self.head)

    def score(self, model: nn.Module, split: str, precision: str) -> Scores:
        """Score a model on a split."""
        pad = self.base.pad_token_id
        return score(model, self.data.splits[split], precision=precision, pad_token_id=pad, device=self.device)

    def score_trial(self, trial: Trial, split: str) -> Scores:
        """Score a recorded trial on a split, from its files."""
        if trial.spec.method == "full":
            model = copy.deepcopy(self.model)
            load_model(model, trial.adapter / "model.safetensors")
            return self.score(model, split, trial.spec.precision)
        try:
            load_adapter(self.model, trial.adapter)
            return self.score(self.model, split, trial.spec.precision)
        finally:
            self._restore()

    def run(self, spec: TrialSpec, store: TrialStore, observe: Observe = lambda _: None) -> Trial:
        """Train a trial, score it on the splits that it names, and record it.

        Args:
            spec: The trial; its fingerprints must be those of this bench.
            store: Where to record it.
            observe: Is shown each step; what it raises ends the trial unrecorded.

        Returns:
            The recorded trial; ``failed`` where memory did not suffice, so that others can go on.

        Raises:
            ValueError: The spec is of another model or other data.
        """
        if (spec.model, spec.data) != (self.base.fingerprint, self.data.fingerprint):
            raise ValueError(f"trial {spec.key} is of another model or other data than what is loaded.")
        started = time.perf_counter()
        with self._model_of(spec) as model:
            try:
                training = self._train(model, spec, observe)
                trained = time.perf_counter()
                scores, reason = self._scores(model, spec, training)
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
                return store.write(spec, _failed(error, self.device), {})
            cost = {
                **training.cost,
                "trainable_parameters": sum(p.numel() for p in trainable_parameters(model).values()),
                "adapter_bytes": sum(4 * p.numel() for p in trainable_parameters(model).values()),
                "eval_seconds": time.perf_counter() - trained,
                "wall_seconds": time.perf_counter() - started,
            }
            result = _result(training, scores, reason, cost, self.device)
            return store.write(spec, result, scores, None if reason else partial(self._save, model, spec))

    def _scores(self, model: nn.Module, spec: TrialSpec, training: Training) -> tuple[dict[str, Scores], str]:
        """Score a trained model, or say why it diverged."""
        if training.diverged_at is not None:
            return {}, f"the loss was not finite at step {training.diverged_at}"
        scores = {split: self.score(model, split, spec.precision) for split in spec.evaluate}
        if all(np.isfinite(s.loss).all() for s in scores.values()):
            return scores, ""
        return {}, "the loss of a scored example was not finite"

    def _train(self, model: nn.Module, spec: TrialSpec, observe: Observe) -> Training:
        def evaluate() -> tuple[float, float]:
            scores = self.score(model, "tune", spec.precision)
            return scores.accuracy, scores.mean_loss

        return train(
            model,
            spec,
            self.data.splits["train"],
            pad_token_id=self.base.pad_token_id,
            device=self.device,
            evaluate=evaluate,
            observe=observe,
        )

    @contextmanager
    def _model_of(self, spec: TrialSpec) -> Iterator[nn.Module]:
        """Give the model the trial's new parameters, and take them away again."""
        if spec.method == "full":
            model = copy.deepcopy(self.model).requires_grad_(True)
            reset_head(model, spec.seed)
            yield model
            return
        inject(self.model, spec.rank_map, alpha=spec.alpha, scaling=spec.scaling, dropout=spec.dropout, seed=spec.seed)
        for name in self.head:
            self.model.get_submodule(name).requires_grad_(True)
        reset_head(self.model, spec.seed)
        for layer in self.model.modules():
            if isinstance(layer, LoRALinear):
                layer.train()
        try:
            yield self.model
        finally:
            self._restore()

    def _restore(self) -> None:
        eject(self.model)
        self.model.eval().requires_grad_(False)
        self.model.zero_grad(set_to_none=True)

    def _save(self, model: nn.Module, spec: TrialSpec, folder: Path) -> None:
        if spec.method != "full":
            save_adapter(
                model, folder, base_model_name_or_path=self.base.reference, modules_to_save=self.head,
            )  # fmt: skip
        elif _EVIDENCE_SPLIT in spec.evaluate:
            folder.mkdir()
            save_model(model, str(folder / "model.safetensors"))


def _result(
    training: Training, scores: dict[str, Scores], reason: str, cost: dict[str, float], device: torch.device
) -> TrialResult:
    return TrialResult(
        status="diverged" if reason else "completed",
        reason=reason,
        metrics={
            split: {"accuracy": s.accuracy, "loss": s.mean_loss, "examples": len(s.correct)}
            for split, s in scores.items()
        },
        history=training.history,
        cost=cost,
        environment=_environment(device),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether memory did not suffice; for the CPU torch has no exception of its own."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _failed(error: BaseException, device: torch.device) -> TrialResult:
    reason = str(error).strip().splitlines()
    return TrialResult(
        status="failed",
        reason=f"out of memory: {reason[0] if reason else type(error).__name__}",
        environment=_environment(device),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _environment(device: torch.device) -> dict[str, str]:
    import transformers

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": f"{device.type} ({name})",
        "threads": str(torch.get_num_threads()),
    }
