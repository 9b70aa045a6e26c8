"""From what a study varies to whole trial specs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from rankexp.config import StudyConfig
from rankexp.ranks import Method, RankMap, TrialSpec
from rankexp.strategies.grid import Setting


@dataclass(frozen=True)
class Specs:
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
    precision: str
    shapes: Mapping[str, tuple[int, int]]

    def tuning(self, setting: Setting) -> TrialSpec:
        """Spec of a run that only chooses a learning rate: scored on ``tune`` and nothing else."""
        search = self.config.search
        spec = self._spec(setting, search.seed, ("tune",))
        raced = search.first_rung and setting.rank
        spec = replace(spec, steps=search.steps or spec.steps)
        return replace(spec, eval_every=search.first_rung, patience=0) if raced else spec

    def evidence(self, setting: Setting, seed: int) -> TrialSpec:
        """Spec of a run that is compared: at full length, scored on training examples, ``tune`` and ``decide``."""
        return self._spec(setting, seed, ("train", "tune", "decide"))

    def _spec(self, setting: Setting, seed: int, evaluate: tuple[str, ...]) -> TrialSpec:
        lora, train = self.config.lora, self.config.train
        adapted = bool(setting.rank)
        return TrialSpec(
            model=self.model,
            data=self.data,
            task=self.config.task["name"],
            method=_method(setting),
            dimension=setting.dimension,
            rank_map=RankMap.uniform(self.shapes, setting.rank) if setting.rank else RankMap(),
            alpha=setting.alpha,
            scaling=lora.scaling,
            dropout=lora.dropout if adapted else 0.0,
            learning_rate=setting.learning_rate,
            schedule=train.schedule,
            warmup_steps=train.warmup_steps,
            weight_decay=train.weight_decay,
            max_grad_norm=train.max_grad_norm,
            steps=train.steps,
            batch_size=train.batch_size,
            accumulation=train.accumulation,
            seed=seed,
            precision=self.precision,  # type: ignore[arg-type]
            eval_every=train.eval_every,
            patience=train.patience,
            evaluate=evaluate,
        )


def _method(setting: Setting) -> Method:
    if setting.dimension:
        return "subspace"
    return "full" if setting.rank is None else "lora" if setting.rank else "head"
