"""What ``rankexp power`` prints: how sure a study can be, and what more evidence would take."""

from __future__ import annotations

from dataclasses import dataclass

from rankexp.analysis.cost import plan, price
from rankexp.analysis.study import Study
from rankexp.report.formats import amount, count, evidence_unit, hours, percent
from rankexp.report.sections.seed_noise import seed_noise, sentence


def plan_text(study: Study, target: float) -> str:
    """Say what would give the comparison that decided the power ``target``, and which way takes less device time.

    Raises:
        ValueError: ``target`` is no power above the study's level.
    """
    if not study.level < target < 1:
        raise ValueError(f"target is {target:g}; a power between the level, {study.level:g}, and 1 is needed.")
    verdict = study.final_verdict
    if study.complete and not study.asked:
        return f"{study.name}: no verdict was asked for (decide.verdict=false), so there is no power to speak of."
    if verdict is None:
        return f"{study.name}: undecided, because runs of the decision are missing."
    found = plan(verdict, target)
    if found is None:
        return f"{study.name}: {verdict.status}. No two ranks were compared, so there is no power to speak of."
    unit = evidence_unit(len(study.scores.groups), study.scores.examples)
    cost, margin = price(study, found, verdict), amount(study.margin, study.metric)
    low, high = found.compared
    seeds = Way("seeds", "seeds of every rank", found.seeds, verdict.seeds, cost.seeds)
    examples = Way("examples", f"{unit} to decide on", found.examples, verdict.examples, cost.examples)
    both = seeds.missing and examples.missing
    lines = [
        f"{study.name}: {verdict.status}",
        f"The comparison that decided is rank {low} with rank {high}, at a margin of {margin}.",
        f"{'now':<9} {percent(found.now):>6} power with {count(verdict.seeds)} seeds and "
        f"{count(verdict.examples)} {unit}",
        *(
            way.line(target) + ("  <- less device time" if both and cost.cheaper == way.name else "")
            for way in (seeds, examples)
        ),
        "Power is the chance to accept the smaller rank if the two are truly equal. Making examples is not counted.",
        sentence(seed_noise(study.comparison), study.metric),
    ]
    return "\n".join(lines)


@dataclass(frozen=True)
class Way:
    """One way to more power.

    Attributes:
        name: ``seeds`` or ``examples``.
        what: What is counted, in words.
        needed: How many are needed in all; None where no number does.
        have: How many there are.
        hours: Device hours that the missing ones take.
    """

    name: str
    what: str
    needed: int | None
    have: int
    hours: float | None

    @property
    def missing(self) -> int:
        """How many are missing; 0 where there are enough, or none would do."""
        return max((self.needed or 0) - self.have, 0)

    def line(self, target: float) -> str:
        """Say what this way takes."""
        if self.needed is None or self.hours is None:
            return f"{self.name:<9} no number of {self.what} alone gives {percent(target)} power"
        more = f"{count(self.missing)} more take {hours(self.hours)}" if self.missing else "there are enough"
        return f"{self.name:<9} {percent(target):>6} power with {count(self.needed)} {self.what}: {more}"
