"""Trials from their specs to the record: train them on a bench, score, write."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from safetensors.torch import save_file, save_model
from torch import Tensor, nn

from rankexp.analysis.scoring import means_of
from rankexp.lora.inject import ALL_LAYERS
from rankexp.lora.pack import Adapter
from rankexp.lora.peft_format import save_adapter
from rankexp.record.scores import Scores
from rankexp.record.trial import Trial
from rankexp.record.trials import TrialStore
from rankexp.training.adapters import update_spectrum, weights_of
from rankexp.training.bench import Bench
from rankexp.training.checkpoint import Checkpoints
from rankexp.training.loop import Loop
from rankexp.training.out_of_memory import on_out_of_memory
from rankexp.training.outcome import environment_of, failure_of, result_of
from rankexp.training.slot import Slot
from rankexp.training.stop import Observe, Row, StopTrialError
from rankexp.trial_spec import MAPPED, Scoring, TrialSpec

_COMPARED = Scoring("decide")


class Job(Protocol):
    """A trial that somebody wants trained, and who is told of it."""

    @property
    def spec(self) -> TrialSpec:
        """The trial."""

    def observe(self, row: Row) -> None:
        """Is shown each step; see :data:`rankexp.training.stop.Observe`."""

    def publishing(self) -> AbstractContextManager[None]:
        """Is held while the trial becomes part of the record; may raise :class:`StopTrialError` to refuse."""

    def finish(self, trial: Trial) -> None:
        """Is told that the trial is in the record, whatever came of it."""

    def stop(self, error: StopTrialError, history: Sequence[Row]) -> None:
        """Is told that the trial ended unrecorded, of ``error``: at the last of its rows, or when it was published."""


def train_trial(
    bench: Bench,
    spec: TrialSpec,
    store: TrialStore,
    observe: Observe = lambda _: None,
    *,
    checkpoint_every: int = 0,
) -> Trial:
    """Train one trial alone, score it on the splits that it names, and record it.

    Args:
        bench: The model and the data.
        spec: The trial; its fingerprints must be those of the bench.
        store: Where to record it.
        observe: Is shown each step, also those that were done before it went on from a checkpoint; what it raises
            ends the trial unrecorded.
        checkpoint_every: Steps between two checkpoints; 0 writes none.

    Returns:
        The recorded trial; ``failed`` where memory did not suffice, so that others can go on.

    Raises:
        ValueError: The spec is of another model or other data.
    """
    job = _Alone(spec, observe)
    train_trials(bench, job.take, store, checkpoint_every=checkpoint_every)
    return job.trial


def train_trials(
    bench: Bench,
    take: Callable[[int, TrialSpec | None], Sequence[Job]],
    store: TrialStore,
    size: int = 1,
    seats: int = 1,
    *,
    checkpoint_every: int = 0,
    check: Callable[[], None] = lambda: None,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Train and record trials until there are none left, each from its checkpoint if it has one.

    Args:
        bench: The model and the data.
        take: Gives jobs that start together: at most so many, and able to train together with that spec if one is
            given (see :meth:`rankexp.trial_spec.TrialSpec.packs_with`); none if there are none now.
        store: Where to record them.
        size: Most trials in one forward pass.
        seats: Most trials at a time, if that is more.
        checkpoint_every: Steps of a trial between two checkpoints; 0 writes none.
        check: Is called after each step; what it raises ends all, once trials in training were saved.
        say: Is told which trials go on from a checkpoint.
    """
    jobs: dict[Slot, Job] = {}
    kept = Checkpoints(store.checkpoints, environment_of(bench.device), checkpoint_every, check, say)

    def seat(room: int, beside: TrialSpec | None) -> list[Slot]:
        fresh = {kept.open(partial(slot_of, bench, job.spec, job.observe)): job for job in take(room, beside)}
        jobs.update(fresh)
        return list(fresh)

    loop = Loop(bench.pack, bench.prefix.collator, size, max(size, seats), bench.prefix, kept.after_step)
    with closing(loop.run(seat)) as ended:
        for slot in ended:
            stopped = _end(bench, slot, jobs.pop(slot), store)
            if stopped is None or not stopped.goes_on_elsewhere:
                kept.forget(slot.spec.key)


def slot_of(bench: Bench, spec: TrialSpec, observe: Observe = lambda _: None) -> Slot:
    """Prepare a trial for its first step: its adapter, and how it is evaluated on ``tune`` meanwhile."""
    adapter = bench.adapter(spec)

    def evaluate() -> dict[str, float]:
        scores = bench.score_adapter(adapter, Scoring("tune"), spec.precision)
        return means_of(scores, bench.data.objective.metrics)

    return Slot(spec, adapter, bench.data.splits["train"], evaluate=evaluate, observe=observe)


def _end(bench: Bench, slot: Slot, job: Job, store: TrialStore) -> StopTrialError | None:
    """Record a trial and tell its job, or tell it why not, and return that."""
    stopped = slot.error if isinstance(slot.error, StopTrialError) else None
    if stopped is None:
        try:
            job.finish(_record(bench, slot, store, job.publishing()))
        except StopTrialError as refused:
            stopped = refused
    if stopped is not None:
        job.stop(stopped, slot.history)
    return stopped


def _record(bench: Bench, slot: Slot, store: TrialStore, publishing: AbstractContextManager[None]) -> Trial:
    trained, spec, final = time.perf_counter(), slot.spec, slot.adapter.exported()
    scores, reason = dict[str, Scores](), ""
    if slot.error is None:
        with on_out_of_memory(slot.fail):
            scores, reason = _scores(bench, slot, final)
    if slot.error is not None:
        return store.write(spec, failure_of(slot.error, bench.device), {}, publishing=publishing)
    parameters = sum(p.numel() for p in slot.parameters)
    cost = {
        **slot.meter.cost(),
        "trainable_parameters": parameters,
        "adapter_bytes": 4 * sum(p.numel() for p in final.parameters()),
        "eval_seconds": time.perf_counter() - trained,
        "wall_seconds": time.perf_counter() - slot.began,
    }
    result = result_of(slot, scores, reason, cost, bench.device, bench.data.objective.metrics)
    save = None if reason else partial(_save, bench, spec, final)
    return store.write(spec, result, scores, save, publishing)


def _scores(bench: Bench, slot: Slot, final: Adapter) -> tuple[dict[str, Scores], str]:
    """Score a trained model, or say why it diverged."""
    if slot.state == "diverged":
        return {}, f"the loss was not finite at step {slot.step}"
    spec = slot.spec
    scores = {scoring.name: bench.score_adapter(final, scoring, spec.precision) for scoring in spec.evaluate}
    if all(np.isfinite(s.values["loss"]).all() for s in scores.values()):
        return scores, ""
    return {}, "the loss of a scored example was not finite"


def _save(bench: Bench, spec: TrialSpec, final: Adapter, folder: Path) -> None:
    """Write a trained adapter into a folder, or all weights of a full fine-tuning that is compared."""
    with bench.pack.holding(final) as model:
        if spec.method in (*MAPPED, "head"):
            save_adapter(
                model, folder, base_model_name_or_path=bench.base.reference, modules_to_save=bench.saved,
                task_type=bench.data.objective.kind.peft_type,
            )  # fmt: skip
        elif spec.method == "full" and _COMPARED in spec.evaluate:
            folder.mkdir()
            save_model(model, str(folder / "model.safetensors"))
            save_file(_update_spectrum(bench, model), folder / "update_spectrum.safetensors")


def _update_spectrum(bench: Bench, trained: nn.Module) -> dict[str, Tensor]:
    names = bench.shapes(ALL_LAYERS)
    after = weights_of(trained, names)
    with bench.pack.holding() as base:
        return update_spectrum(weights_of(base, names), after)


class _Alone:
    """The job of a single trial."""

    def __init__(self, spec: TrialSpec, observe: Observe) -> None:
        self.spec, self.observe = spec, observe
        self.waiting = [self]
        self.trial: Trial

    def take(self, *_: object) -> list[_Alone]:
        taken, self.waiting = self.waiting, []
        return taken

    def publishing(self) -> AbstractContextManager[None]:
        return nullcontext()

    def finish(self, trial: Trial) -> None:
        self.trial = trial

    def stop(self, error: StopTrialError, history: Sequence[Row]) -> None:  # noqa: ARG002
        raise error
