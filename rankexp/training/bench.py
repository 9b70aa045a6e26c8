"""A bench: one base model in memory with the data of one task, where the trials of a study are trained and scored."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_model
from torch import Tensor, nn

from rankexp.canonical_json import content_key
from rankexp.lora.inject import ALL_LAYERS, eject, new_layers
from rankexp.lora.pack import Adapter, Pack
from rankexp.lora.peft_reading import load_adapter
from rankexp.lora.squeeze import squeezed
from rankexp.models.base import BaseModel, Padding, head_names
from rankexp.models.beside import check_gradients, trained_whole
from rankexp.models.loading import brought_names, loading_of, quiet, set_pad
from rankexp.objectives.base import Collator
from rankexp.option_errors import ConfigError, reason
from rankexp.record.scores import Scores
from rankexp.record.trial import Trial
from rankexp.tasks.base import TaskData
from rankexp.tasks.examples import Examples
from rankexp.training.adapters import make_adapter
from rankexp.training.device import autocast
from rankexp.training.out_of_memory import is_out_of_memory
from rankexp.training.padding import check_fits, find_padding
from rankexp.training.prefix import Prefix
from rankexp.training.probes.calibration import Calibration
from rankexp.training.reach import target_layers
from rankexp.training.recompute import recompute_blocks
from rankexp.training.scoring import score
from rankexp.trial_spec import Scoring, TrialSpec

AUTO = "auto"
TRAINING_SAMPLE = 500
"""Most examples of ``train`` that a trial is scored on, to see how far it fits them better than new ones."""


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
    def load(
        cls, base: BaseModel, data: TaskData, device: torch.device, *, recompute: bool = False, attention: str = AUTO
    ) -> Bench:
        """Load the base model onto the device, and find out what it needs, unless that is known.

        A model that needs another padding than the usual, or of which something was drawn, is another model: it has
        another fingerprint than the files alone.

        Args:
            base: The base model as it was found.
            data: The task's data.
            device: Where to train.
            recompute: Whether blocks are computed again in the backward pass, which takes time and saves memory.
            attention: How attention is computed, as for :func:`prepare`.

        Raises:
            ConfigError: The texts do not fit the model, it cannot be trained in batches, or not with that attention.
        """
        model: Any = base.build(data.objective.kind).requires_grad_(False)
        check_fits(model, data)
        prepare(model, device, attention)
        base = _settled(base, model, data)
        if recompute:
            recompute_blocks(model)
        made = cls(base, Pack(base.place(model, device)), data, device)
        if loading_of(model).whole or loading_of(model).rows:
            made._check_gradients()
        return made

    def _check_gradients(self) -> None:
        """Refuse what is to be trained beside LoRA and has no influence on a loss."""
        collator = self.collator(self.data.splits["train"])
        batch = collator(np.arange(min(2, len(collator.examples))))
        with self.pack.holding(Adapter({}, trained_whole(self.model, 0))) as model:
            check_gradients(model, lambda: self.data.objective.losses(model, batch))

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
    def _collator(self) -> Collator:
        return self.collator(self.data.splits["train"])

    @cached_property
    def packs(self) -> bool:
        """Whether two trials in a pack give the answers that each gives alone; tried once.

        Not so for a model that hands a linear layer rows in another order than the batch's, or rows of its own. One
        that pads on the left is not tried: slots would no longer drop inputs at places of their own.
        """
        if self.padding.side == "left":
            return False
        collator = self._collator
        index = np.arange(min(4, len(collator.examples)))
        ranks = dict.fromkeys(self.shapes(ALL_LAYERS), 1)

        def changed(seed: int) -> Adapter:
            layers = new_layers(self.model, ranks, alpha=1.0, seed=seed)
            for layer in layers.values():
                nn.init.constant_(layer.lora_B, 0.1)
            return Adapter(layers, _moved(trained_whole(self.model, seed), seed))

        def answers(indices: Sequence[NDArray[np.int64]], *held: Adapter) -> Tensor:
            with self.pack.holding(*held) as model, torch.no_grad(), autocast(self.base.dtype, self.device):
                return self.data.objective.answers(model, collator(*indices)).float()

        pair = changed(0), changed(1)
        try:
            alone = torch.cat([answers([index], adapter) for adapter in pair])
            together = answers([index, index], *pair)
        except Exception:  # whatever a model makes of shapes that no pack splits, or of modules in several copies
            return False
        rounding = 1e-3 if self.base.dtype == "float32" else 5e-2
        return torch.allclose(alone, together, rtol=rounding, atol=rounding * float(alone.std()))

    def check_layers(self, names: Iterable[str]) -> None:
        """Refuse layers to adapt that the model does not merely call, such as to read the stride of a convolution.

        Raises:
            ConfigError: The model cannot be computed with LoRA around them, in PEFT no more than here.
        """
        layers, collator = new_layers(self.model, dict.fromkeys(names, 1), alpha=1.0, seed=0), self._collator
        with self.pack.holding(Adapter(layers, {})) as model, torch.no_grad(), autocast(self.base.dtype, self.device):
            try:
                self.data.objective.answers(model, collator(np.arange(1)))
            except (AttributeError, TypeError, RuntimeError) as error:
                if is_out_of_memory(error):
                    raise
                raise ConfigError(
                    f"option 'lora.target_modules' selects layers around which LoRA cannot go in this model, in PEFT "
                    f"neither: {reason(error)}."
                ) from None

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
        """Names of the modules that each adapter brings whole: what is trained so, and what the files lacked."""
        return brought_names(self.model)

    def shapes(self, targets: str | list[str]) -> dict[str, tuple[int, int]]:
        """Names and (in, out) of the layers that ``targets`` selects; see :func:`target_layers`."""
        return target_layers(self.model, targets, self.saved)

    def adapter(self, spec: TrialSpec) -> Adapter:
        """Make the modules that a trial trains, as they are before its first step.

        Raises:
            ValueError: The spec is of another model or other data.
        """
        if (spec.model, spec.data) != (self.base.fingerprint, self.data.fingerprint):
            raise ValueError(f"trial {spec.key} is of another model or other data than what is loaded.")
        with self.pack.holding() as model:
            return make_adapter(model, spec, self.head, self.calibration.directions)

    def score_adapter(self, adapter: Adapter, scoring: Scoring, precision: str) -> Scores:
        """Score an adapter that is not held; see :meth:`score`."""
        with self.pack.holding(adapter) as model:
            return self.score(model, scoring, precision)

    def score(self, model: nn.Module, scoring: Scoring, precision: str) -> Scores:
        """Score a model on each example of a split, of ``train`` on a sample."""
        examples = self._training_sample if scoring.split == "train" else self.data.scored[scoring.split]
        with nullcontext() if scoring.cut is None else squeezed(model, scoring.cut):
            return score(model, self.collator(examples), precision=precision)

    @cached_property
    def _training_sample(self) -> Examples:
        return self.data.splits["train"].sample(TRAINING_SAMPLE)

    def score_trial(self, trial: Trial, scoring: Scoring) -> Scores:
        """Score a recorded trial from its files.

        Raises:
            DamagedRecordError: One of them does not match its hash.
        """
        trial.check()
        if trial.spec.method == "full":
            with self.pack.holding(self.adapter(trial.spec)) as model:
                load_model(model, trial.adapter / "model.safetensors")
                return self.score(model, scoring, trial.spec.precision)
        held = self.pack.holding() if trial.spec.method == "base" else self._loaded(trial)
        with held as model:
            return self.score(model, scoring, trial.spec.precision)

    @contextmanager
    def _loaded(self, trial: Trial) -> Iterator[nn.Module]:
        """Hold a recorded trial's adapter for a while, and copies of what it brings whole."""
        with self.pack.holding(Adapter({}, trained_whole(self.model, 0))):
            try:
                load_adapter(self.model, trial.adapter)
                yield self.model
            finally:
                eject(self.model)
                self.model.requires_grad_(False)


def prepare(model: Any, device: torch.device, attention: str = AUTO) -> None:
    """Let a model of transformers compute as it does on a bench, wherever it is at the moment.

    Args:
        model: The model; changed in place.
        device: Where it is going to be trained.
        attention: Name of an implementation of attention in transformers; ``auto`` for ``eager`` on a processor, where
            the backward pass of the fused kernel is slower, and the model's own choice elsewhere.

    Raises:
        ConfigError: The model has no such implementation, or what it needs is not installed.
    """
    config = model.config.get_text_config()
    model.config.use_cache = config.use_cache = False  # of keys and values, which a decoder would keep in every pass
    if getattr(config, "output_router_logits", False):
        config.output_router_logits = False  # for a loss that is no part of the task's
    if attention == AUTO and device.type == "cpu":
        model.set_attn_implementation("eager")
    elif attention != AUTO:
        _set_attention(model, attention)


def attention_of(model: Any) -> str:
    """Name how a model computes attention."""
    return str(getattr(model.config, "_attn_implementation", None) or "its own")


def _set_attention(model: Any, attention: str) -> None:
    said = f"option 'attention' is {attention!r}, and {type(model).__name__}"
    try:
        with quiet():
            model.set_attn_implementation(attention)
    except (ImportError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{said} cannot have it: {reason(error)}.") from None
    if attention_of(model) != attention:
        raise ConfigError(f"{said} has {attention_of(model)} attention alone; auto takes that.")


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


@torch.no_grad()
def _moved(modules: dict[str, nn.Module], seed: int) -> dict[str, nn.Module]:
    """Add noise that depends on a seed to what modules train, in place: copies that a model confuses then tell."""
    generator = torch.Generator().manual_seed(seed)
    parameters = dict.fromkeys(p for module in modules.values() for p in module.parameters() if p.requires_grad)
    for parameter in parameters:
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator).to(parameter))
    return modules
