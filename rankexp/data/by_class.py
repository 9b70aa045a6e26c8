"""Dealing rows to splits by class, where a deal at random leaves a class out of ``train``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from rankexp.data.rows import Row
from rankexp.data.table import TaskError

Group = Sequence[Row]


class _Filling:
    """A split while it is filled."""

    def __init__(self, wanted: float) -> None:
        self.wanted = wanted
        self.groups: list[Group] = []
        self.held: Counter[str] = Counter()
        self.size = 0

    @property
    def full(self) -> bool:
        return self.size >= int(self.wanted)

    def add(self, group: Group) -> None:
        self.groups.append(group)
        self.held.update(row.label for row in group)
        self.size += len(group)

    def spare(self) -> Group | None:
        """Give up the last group whose classes other groups have, too."""
        of = Counter(label for group in self.groups for label in {row.label for row in group})
        for index in reversed(range(len(self.groups))):
            if all(of[row.label] > 1 for row in self.groups[index]):
                group = self.groups.pop(index)
                self.held.subtract(row.label for row in group)
                self.size -= len(group)
                return group
        return None


def deal_by_class(
    groups: Sequence[Group], wanted: Mapping[str, float], order: Sequence[str], *, short: bool
) -> dict[str, list[Row]]:
    """Deal whole groups so that each class is in ``train``, and else in each split at its share of all rows.

    Rare classes are dealt first; a group counts as of its rarest class.

    Args:
        groups: Rows that belong together, in the order in which they are dealt.
        wanted: Examples of each split.
        order: The splits in the order in which they are filled, ``train`` last.
        short: Whether ``train`` may have fewer.

    Raises:
        TaskError: There are too few groups.
    """
    counts = Counter(row.label for group in groups for row in group)
    splits = {name: _Filling(wanted[name]) for name in order}
    left: list[Group] = []
    rarest = [min((counts[row.label], row.label) for row in group) for group in groups]
    for (count, label), index in sorted(zip(rarest, range(len(groups)), strict=True)):
        split = _neediest(splits, label, count / counts.total())
        (split.add if split else left.append)(groups[index])
    for name in order:
        while not splits[name].full:
            group = left.pop(0) if left else splits["train"].spare() if short and name != "train" else None
            if group is None and name == "train" and short:
                break
            if group is None:
                raise _cannot_be_dealt(groups, splits[name], name)
            splits[name].add(group)
    return {name: [row for group in split.groups for row in group] for name, split in splits.items()}


def _neediest(splits: Mapping[str, _Filling], label: str, share: float) -> _Filling | None:
    """Return the split that lacks most rows of a class; ``train`` if it has none, nothing if none lacks any."""
    if not splits["train"].held[label]:
        return splits["train"]
    lacks = [(share * split.wanted - split.held[label], split) for split in splits.values() if not split.full]
    most, split = max(lacks, key=lambda found: found[0], default=(0.0, None))
    return split if most > 0 else None


def _cannot_be_dealt(groups: Sequence[Group], split: _Filling, name: str) -> TaskError:
    """Name the class in the fewest groups: the one that ``train`` takes away from the others."""
    of: dict[str, list[Row]] = {}
    for group in groups:
        for label, row in {row.label: row for row in reversed(group)}.items():
            of.setdefault(label, []).append(row)
    label = min(of, key=lambda label: (len(of[label]), label))
    return TaskError(
        f"split {name!r} cannot have {int(split.wanted)} examples while train has each class, since class {label!r} is "
        f"in {len(of[label])} group{'s' * (len(of[label]) > 1)} only, first {of[label][0].place}."
    )
