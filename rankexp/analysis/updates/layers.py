"""The updates of a study side by side: each layer's spectrum by rank, and what ranks and seeds share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from rankexp.analysis.study import Study
from rankexp.analysis.updates.read_adapter import full_spectrum, has_adapter, updates
from rankexp.analysis.updates.singular_values import Floats, Update, random_similarity, similarity
from rankexp.candidates import FULL
from rankexp.record.files import DamagedRecordError

MOST_SEEDS = 3
"""Seeds of each rank that are decomposed; more would only cost time."""

Updates = Mapping[str, Update]


@dataclass(frozen=True)
class Layers:
    """The decomposed updates of a study.

    Attributes:
        shapes: (in, out) of each adapted layer.
        found: Updates by rank and seed, then layer.
        full: Singular values of full fine-tuning's update by layer; empty where it was not run or not recorded.
    """

    shapes: Mapping[str, tuple[int, int]]
    found: Mapping[int, Mapping[int, Updates]]
    full: Mapping[str, Floats]

    @property
    def ranks(self) -> list[int]:
        """Ranks of which there are updates, increasing."""
        return sorted(self.found)

    def values(self, rank: int, layer: str) -> Floats:
        """Singular values of a layer at a rank, the mean over seeds."""
        mean: Floats = np.mean([runs[layer].values for runs in self.found[rank].values()], axis=0)
        return mean

    @property
    def sizes(self) -> list[int]:
        """Numbers of directions to compare: 1, 2, 4 and so on up to the smallest rank."""
        smallest = self.ranks[0]
        return sorted({min(2**n, smallest) for n in range(smallest.bit_length())} | {smallest})

    def between_ranks(self) -> dict[tuple[int, int], list[float]]:
        """Mean similarity of two ranks of the same seed, by pair of ranks and number of directions."""
        return {
            (low, high): self._similarities(
                (self.found[low][seed], self.found[high][seed]) for seed in self.found[low] if seed in self.found[high]
            )
            for low, high in combinations(self.ranks, 2)
        }

    def between_seeds(self) -> dict[int, list[float]]:
        """Mean similarity of two seeds of one rank, by rank and number of directions; none for a single seed."""
        several = {rank: runs for rank, runs in self.found.items() if len(runs) > 1}
        return {rank: self._similarities(combinations(runs.values(), 2)) for rank, runs in sorted(several.items())}

    def random(self) -> list[float]:
        """Expected similarity of random subspaces, the mean over layers, by number of directions."""
        outputs = [shape[1] for shape in self.shapes.values()]
        return [float(np.mean([random_similarity(size, out) for out in outputs])) for size in self.sizes]

    def _similarities(self, pairs: Iterable[tuple[Updates, Updates]]) -> list[float]:
        listed = list(pairs)
        return [finite_mean([similarity(a[n], b[n], size) for a, b in listed for n in a]) for size in self.sizes]


def load_layers(study: Study) -> Layers | None:
    """Decompose the adapters of a study's ranks; None where it has none.

    Raises:
        DamagedRecordError: An adapter does not match its hash.
    """
    found = {}
    for rank in study.ranks:
        trials = [trial for trial in study.chosen_trials(rank) if has_adapter(trial)][:MOST_SEEDS]
        if trials:
            found[rank] = {trial.spec.seed: updates(trial) for trial in trials}
    if not found:
        return None
    adapted = next(iter(next(iter(found.values())).values()))
    if strange := sorted(adapted.keys() - study.record.model["shapes"].keys()):
        raise DamagedRecordError(f"{study.store.folder / 'study.json'} does not name the adapted layer {strange[0]!r}.")
    shapes = {name: tuple(study.record.model["shapes"][name]) for name in adapted}
    recorded = [full_spectrum(trial) for trial in study.evidence(FULL) if trial is not None]
    full = next((spectrum for spectrum in recorded if spectrum), {})
    return Layers(shapes, found, {name: values for name, values in full.items() if name in shapes})


def finite_mean(values: Iterable[float]) -> float:
    """Mean of the values that are numbers; NaN where none is."""
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")
