"""Trials from their specs to the record: prepare the model, train, score, write."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_model, save_file, save_model
from torch import Tensor, nn

from rankexp.canonical_json import content_key
from rankexp.lora.inject import eject, new_layers, target_shapes
from rankexp.lora.pack import Adapter, Pack
from rankexp.lora.peft_format import load_adapter, save_adapter
from rankexp.lora.squeeze import squeezed
from rankexp.models.base import BaseModel, Padding, head_names, new_head
from rankexp.models.loading import loading_of, set_pad
from rankexp.objectives.base import Collator
from rankexp.record.scores import Scores
from rankexp.record.trial import Trial
from rankexp.record.trials import TrialStore
from rankexp.tasks.base import Examples, TaskData
from rankexp.training.adapters import make_adapter, update_spectrum, weights_of
from rankexp.training.checkpoint import Checkpoints
from rankexp.training.loop import Loop, is_out_of_memory
from rankexp.training.outcome import environment_of, failure_of, result_of
from rankexp.training.padding import check_fits, find_padding
from rankexp.training.prefix import Prefix
from rankexp.training.probes.calibration import Calibration
from rankexp.training.scoring import score
from rankexp.training.slot import Slot
from rankexp.training.stop import Observe, Row, StopTrialError
from rankexp.trial_spec import MAPPED, TrialSpec

_EVIDENCE_SPLIT = "decide"
TRAINING_SAMPLE = 500
"""Most examples of ``train`` that a trial is scored on, to see how far it fits them better than new ones."""


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


@dataclass(frozen=True)
class Bench:
    """One base model in memory and the data of one task: what every trial of a study shares.

    Attributes:
        base: The base model as it was found.
        pack: Its weights with a new head, on ``device``, frozen, and without adapters between trials.
        data: The task's data.
        device: Where to train.
    """

    base: BaseModel
    pack: Pack
    data: TaskData
    device: torch.device

    @classmethod
    def load(cls, base: BaseModel, data: TaskData, device: torch.device) -> Bench:
        """Load the base model onto the device, and find out what it needs, unless that is known.

        A model that needs another padding than the usual, or of which something was drawn, is another model: it has
        another fingerprint than the files alone.

        Raises:
            ConfigError: The texts do not fit the model, or it cannot be trained in batches.
        """
        model: Any = base.build(data.objective.kind).requires_grad_(False)
        check_fits(model, data)
        model.config.use_cache = False  # of keys and values, which a decoder would keep in every forward pass
        if device.type == "cpu":
            model.set_attn_implementation("eager")  # the backward pass of the fused kernel is slower there
        base = _settled(base, model, data)
        return cls(base, Pack(model.to(device)), data, device)

    def copy(self) -> Bench:
        """Return a bench with a model of its own."""
        return replace(self, pack=Pack(copy.deepcopy(self.model)))

    @property
    def model(self) -> nn.Module:
        """The model."""
        return self.pack.model

    @property
    def padding(self) -> Padding:
        """How batches are filled."""
        return self.base.padding or Padding(self.base.pad_token_id)

    def collator(self, examples: Examples) -> Collator:
        """Return what makes batches of some examples for the model."""
        return Collator(examples, self.data.objective, self.padding, self.device)

    @cached_property
    def packs(self) -> bool:
        """Whether two trials in a pack give the answers that each gives alone; tried once.

        Not so for a model that hands a linear layer rows in another order than the batch's, or rows of its own. One
        that pads on the left is not tried: slots would no longer drop inputs at places of their own.
        """
        if self.padding.side == "left":
            return False
        collator = self.collator(self.data.splits["train"])
        index = np.arange(min(4, len(collator.examples)))
        ranks = dict.fromkeys(self.shapes("all-linear"), 1)

        def changed(seed: int) -> Adapter:
            layers = new_layers(self.model, ranks, alpha=1.0, seed=seed)
            for layer in layers.values():
                nn.init.constant_(layer.lora_B, 0.1)
            return Adapter(layers, new_head(self.model, seed))

        def answers(indices: Sequence[NDArray[np.int64]], *held: Adapter) -> Tensor:
            with self.pack.holding(*held) as model, torch.no_grad():
                return self.data.objective.answers(model, collator(*indices))

        pair = changed(0), changed(1)
        alone = torch.cat([answers([index], adapter) for adapter in pair])
        try:
            together = answers([index, index], *pair)
        except (RuntimeError, ValueError, TypeError):  # shapes that no pack can split
            return False
        return torch.allclose(alone, together, rtol=1e-3, atol=1e-3 * float(alone.std()))

    @cached_property
    def prefix(self) -> Prefix:
        """What the blocks below the lowest adapted layer compute on the examples to train on."""
        return Prefix(self.pack, self.collator(self.data.splits["train"]))

    @cached_property
    def calibration(self) -> Calibration:
        """What the layers are given on some examples of those to train on."""
        return Calibration(self.pack, self.collator(self.data.splits["train"]))

    @property
    def head(self) -> tuple[str, ...]:
        """Names of the modules of the head."""
        return head_names(self.model)

    @property
    def saved(self) -> tuple[str, ...]:
        """Names of the modules that each adapter brings whole: the head, and what was drawn since the files lack it."""
        return (*self.head, *loading_of(self.model).drawn)

    def shapes(self, targets: str | list[str]) -> dict[str, tuple[int, int]]:
        """Names and (in, out) of the layers that ``targets`` selects; "all-linear" leaves out those of one output.

        Raises:
            ValueError: A target selects nothing.
        """
        shapes = target_shapes(self.model, targets, self.saved)
        wide = {name: shape for name, shape in shapes.items() if min(shape) > 1}
        return wide if wide and targets == "all-linear" else shapes

    def adapter(self, spec: TrialSpec) -> Adapter:
        """Make the modules that a trial trains, as they are before its first step.

        Raises:
            ValueError: The spec is of another model or other data.
        """
        if (spec.model, spec.data) != (self.base.fingerprint, self.data.fingerprint):
            raise ValueError(f"trial {spec.key} is of another model or other data than what is loaded.")
        with self.pack.holding() as model:
            return make_adapter(model, spec, self.head, self.calibration.directions)

    def run(
        self, spec: TrialSpec, store: TrialStore, observe: Observe = lambda _: None, *, checkpoint_every: int = 0
    ) -> Trial:
        """Train one trial alone, score it on the splits that it names, and record it.

        Args:
            spec: The trial; its fingerprints must be those of this bench.
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
        self.run_all(job.take, store, checkpoint_every=checkpoint_every)
        return job.trial

    def run_all(
        self,
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
        kept = Checkpoints(store.checkpoints, environment_of(self.device), checkpoint_every, check, say)

        def seat(room: int, beside: TrialSpec | None) -> list[Slot]:
            fresh = {kept.open(partial(self._slot, job.spec, job.observe)): job for job in take(room, beside)}
            jobs.update(fresh)
            return list(fresh)

        loop = Loop(
            self.pack,
            self.prefix.collator,
            size,
            max(size, seats),
            self.prefix,
            kept.after_step,
        )
        with closing(loop.run(seat)) as ended:
            for slot in ended:
                stopped = self._end(slot, jobs.pop(slot), store)
                if stopped is None or not stopped.goes_on_elsewhere:
                    kept.forget(slot.spec.key)

    def _end(self, slot: Slot, job: Job, store: TrialStore) -> StopTrialError | None:
        """Record a trial and tell its job, or tell it why not, and return that."""
        stopped = slot.error if isinstance(slot.error, StopTrialError) else None
        if stopped is None:
            try:
                job.finish(self._record(slot, store, job.publishing()))
            except StopTrialError as refused:
                stopped = refused
        if stopped is not None:
            job.stop(stopped, slot.history)
        return stopped

    def _slot(self, spec: TrialSpec, observe: Observe) -> Slot:
        adapter = self.adapter(spec)

        def evaluate() -> dict[str, float]:
            scores = self._score(adapter, "tune", spec.precision)
            return {metric: scores.mean(metric) for metric in scores.values}

        return Slot(spec, adapter, self.data.splits["train"], evaluate=evaluate, observe=observe)

    def _record(self, slot: Slot, store: TrialStore, publishing: AbstractContextManager[None]) -> Trial:
        trained, spec, final = time.perf_counter(), slot.spec, slot.adapter.exported()
        scores, reason = dict[str, Scores](), ""
        try:
            if slot.error is None:
                scores, reason = self._scores(slot, final)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            slot.fail(error)
        if slot.error is not None:
            return store.write(spec, failure_of(slot.error, self.device), {}, publishing=publishing)
        parameters = sum(p.numel() for p in slot.parameters)
        cost = {
            **slot.meter.cost(),
            "trainable_parameters": parameters,
            "adapter_bytes": 4 * sum(p.numel() for p in final.parameters()),
            "eval_seconds": time.perf_counter() - trained,
            "wall_seconds": time.perf_counter() - slot.began,
        }
        result = result_of(slot, scores, reason, cost, self.device)
        save = None if reason else partial(self._save, spec, final)
        return store.write(spec, result, scores, save, publishing)

    def _scores(self, slot: Slot, final: Adapter) -> tuple[dict[str, Scores], str]:
        """Score a trained model, or say why it diverged."""
        if slot.state == "diverged":
            return {}, f"the loss was not finite at step {slot.step}"
        spec = slot.spec
        scores = {split: self._score(final, split, spec.precision) for split in spec.evaluate}
        if all(np.isfinite(s.values["loss"]).all() for s in scores.values()):
            return scores, ""
        return {}, "the loss of a scored example was not finite"

    def _score(self, adapter: Adapter, split: str, precision: str) -> Scores:
        with self.pack.holding(adapter) as model:
            return self.score(model, split, precision)

    def score(self, model: nn.Module, split: str, precision: str) -> Scores:
        """Score a model on a split, of ``train`` on a sample; ``tune@8`` cuts its LoRA layers to rank 8 for it."""
        name, _, rank = split.partition("@")
        examples = self._training_sample if name == "train" else self.data.splits[name]
        with squeezed(model, int(rank)) if rank else nullcontext():
            return score(model, self.collator(examples), precision=precision)

    @cached_property
    def _training_sample(self) -> Examples:
        return self.data.splits["train"].sample(TRAINING_SAMPLE)

    def score_trial(self, trial: Trial, split: str) -> Scores:
        """Score a recorded trial on a split, from its files.

        Raises:
            DamagedRecordError: One of them does not match its hash.
        """
        trial.check()
        if trial.spec.method == "full":
            with self.pack.holding(self.adapter(trial.spec)) as model:
                load_model(model, trial.adapter / "model.safetensors")
                return self.score(model, split, trial.spec.precision)
        with self._loaded(trial) as model:
            return self.score(model, split, trial.spec.precision)

    @contextmanager
    def _loaded(self, trial: Trial) -> Iterator[nn.Module]:
        """Hold a recorded trial's adapter and head for a while."""
        try:
            load_adapter(self.model, trial.adapter)
            yield self.model
        finally:
            eject(self.model)
            self.model.requires_grad_(False)

    def _save(self, spec: TrialSpec, final: Adapter, folder: Path) -> None:
        with self.pack.holding(final) as model:
            if spec.method in (*MAPPED, "head"):
                save_adapter(
                    model, folder, base_model_name_or_path=self.base.reference, modules_to_save=self.saved,
                    task_type=self.data.objective.kind.peft_type,
                )  # fmt: skip
            elif spec.method == "full" and _EVIDENCE_SPLIT in spec.evaluate:
                folder.mkdir()
                save_model(model, str(folder / "model.safetensors"))
                save_file(self._update_spectrum(model), folder / "update_spectrum.safetensors")

    def _update_spectrum(self, trained: nn.Module) -> dict[str, Tensor]:
        names = self.shapes("all-linear")
        after = weights_of(trained, names)
        with self.pack.holding() as base:
            return update_spectrum(weights_of(base, names), after)


def _settled(base: BaseModel, model: nn.Module, data: TaskData) -> BaseModel:
    """Return the base model as it has to be used with this data, with what it needs in its fingerprint."""
    if base.padding is not None:
        if loading_of(model).pad_token_id is None:
            set_pad(model, base.padding.token)
        return base
    padding = find_padding(model, data, base.pad_token_id)
    drawn = loading_of(model).drawn
    odd: dict[str, object] = {"padding": [padding.token, padding.side]} if padding != Padding(base.pad_token_id) else {}
    odd |= {"drawn": list(drawn)} if drawn else {}
    fingerprint = content_key([base.fingerprint, odd]) if odd else base.fingerprint
    return replace(base, fingerprint=fingerprint, padding=padding)


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
