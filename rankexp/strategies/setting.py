"""What a strategy tries, and what it tries it for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rankexp import candidates
from rankexp.candidates import CandidateName
from rankexp.ranks import RankMap, Scaling
from rankexp.trial_spec import Initialisation, Method, NestedLosses, Pruning


@dataclass(frozen=True)
class Variant:
    """How a candidate is trained; by default plain LoRA with one rank in every layer.

    Attributes:
        method: What is trained; see :class:`rankexp.trial_spec.TrialSpec`.
        rank_map: Rank of each layer; None for the setting's rank in every one.
        scaling: Rule of the LoRA scale; None for the study's.
        initialisation: Of the factors.
        loraplus_lr_ratio: Learning rate of ``lora_B`` over that of ``lora_A``.
        nested_ranks: Leading ranks that a nested run trains.
        nested_losses: Whether it trains one of them with each example, or all.
        pruning: How AdaLoRA prunes.
        dimension: Dimensions of a random subspace.
    """

    method: Method = "lora"
    rank_map: RankMap | None = None
    scaling: Scaling | None = None
    initialisation: Initialisation = "default"
    loraplus_lr_ratio: float = 1.0
    nested_ranks: tuple[int, ...] = ()
    nested_losses: NestedLosses = "sampled"
    pruning: Pruning | None = None
    dimension: int = 0


PLAIN = Variant()


@dataclass(frozen=True)
class Candidate:
    """Something that is tuned and may be compared.

    Attributes:
        name: What it is called.
        rank: Rank of every target layer; 0 for the head or the base alone, None where there is no one rank.
        variant: How it is trained.
        cuts: Lower ranks at which a run that only tunes is scored as well.
    """

    name: CandidateName
    rank: int | None
    variant: Variant = PLAIN
    cuts: tuple[int, ...] = ()

    @classmethod
    def of_rank(cls, rank: int) -> Candidate:
        """One rank in every layer."""
        return cls(CandidateName.of_rank(rank), rank)

    def at(self, learning_rate: float, alpha: float, scaling: Scaling | None = None) -> Setting:
        """Return the candidate at a learning rate and scale."""
        variant = self.variant if scaling is None else replace(self.variant, scaling=scaling)
        return Setting(self.name, self.rank, alpha, learning_rate, variant, self.cuts)


HEAD = Candidate(candidates.HEAD, 0, Variant("head"))
BASE = Candidate(candidates.BASE, 0, Variant("base"))
FULL = Candidate(candidates.FULL, None, Variant("full"))


@dataclass(frozen=True)
class Setting:
    """What a run tries.

    Attributes:
        candidate: Name of the candidate.
        rank: Its rank; see :class:`Candidate`.
        alpha: Numerator of the LoRA scale.
        learning_rate: Peak learning rate.
        variant: How it is trained.
        cuts: Lower ranks at which a run that only tunes is scored as well.
    """

    candidate: CandidateName
    rank: int | None
    alpha: float
    learning_rate: float
    variant: Variant = PLAIN
    cuts: tuple[int, ...] = ()
