"""From what a study varies to whole trial specs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Literal

from rankexp.config import StudyConfig
from rankexp.ranks import RankMap
from rankexp.strategies.base import make_strategy
from rankexp.strategies.halving import Halving
from rankexp.strategies.setting import Setting
from rankexp.tasks.base import RETAIN
from rankexp.trial_spec import MAPPED, Scoring, TrialSpec


@dataclass(frozen=True)
class TrialSpecs:
    """Makes the specs of one study.

    Attributes:
        config: The study's configuration.
        model: Fingerprint of the base model.
        data: Fingerprint of the data.
        precision: ``float32`` or ``bfloat16``.
        shapes: (in, out) of each layer that LoRA adapts.
    """

    config: StudyConfig
    model: str
    data: str
    precision: Literal["float32", "bfloat16"]
    shapes: Mapping[str, tuple[int, int]]

    @property
    def tuning_steps(self) -> int:
        """Steps of a tuning run."""
        return self.config.search.steps or self.config.train.steps

    @cached_property
    def halving(self) -> Halving | None:
        """How the study's search stops runs of a rank; all tuning runs of ranks, also of contenders, are alike."""
        return make_strategy(self.config.search.named, "search.").halving(self.tuning_steps)

    def tuning(self, setting: Setting) -> TrialSpec:
        """Spec of a run that only chooses a learning rate: scored on ``tune`` and nothing else."""
        cuts = (Scoring("tune", cut) for cut in setting.cuts)
        spec = self._spec(setting, self.config.search.seed, (Scoring("tune"), *cuts))
        spec = replace(spec, steps=self.tuning_steps)
        if self.halving is None or not setting.rank:
            return spec
        return replace(spec, eval_every=self.halving.first_rung, patience=0)

    def evidence(self, setting: Setting, seed: int) -> TrialSpec:
        """Spec of a run that is compared: at full length, and scored on all that :attr:`compared` names."""
        return self._spec(setting, seed, tuple(map(Scoring, self.compared)))

    @property
    def compared(self) -> tuple[str, ...]:
        """What a run that is compared is scored on: training examples, ``tune``, ``decide``, what is to be retained."""
        return ("train", "tune", "decide", *((RETAIN,) if self.config.task.get(RETAIN) else ()))

    def _spec(self, setting: Setting, seed: int, evaluate: tuple[Scoring, ...]) -> TrialSpec:
        lora, variant = self.config.lora, setting.variant
        mapped = variant.method in MAPPED
        spec = TrialSpec(
            model=self.model,
            data=self.data,
            task=self.config.task["name"],
            method=variant.method,
            dimension=variant.dimension,
            rank_map=self.rank_map(setting) if mapped else RankMap(),
            alpha=setting.alpha,
            scaling=variant.scaling or lora.scaling,
            dropout=lora.dropout if mapped else 0.0,
            initialisation=variant.initialisation,
            loraplus_lr_ratio=variant.loraplus_lr_ratio,
            nested_ranks=variant.nested_ranks,
            nested_losses=variant.nested_losses,
            pruning=variant.pruning,
            learning_rate=setting.learning_rate,
            seed=seed,
            evaluate=evaluate,
            **{**asdict(self.config.train), "precision": self.precision},  # each option of `train` decides a trial
        )
        return untrained(spec) if spec.method == "base" else spec

    def rank_map(self, setting: Setting) -> RankMap:
        """Return the rank of each layer in a setting."""
        if setting.variant.rank_map is not None:
            return setting.variant.rank_map
        return RankMap.uniform(self.shapes, setting.rank or max(setting.variant.nested_ranks))


def untrained(spec: TrialSpec) -> TrialSpec:
    """Return the spec of a model as it is, in which nothing stands that would change nothing."""
    kept = {name: getattr(spec, name) for name in ("model", "data", "task", "method", "precision", "evaluate")}
    return TrialSpec(**kept, learning_rate=0.0, steps=0)
