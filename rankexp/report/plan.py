"""What ``rankexp power`` prints: how sure a study can be, and what more evidence would take."""

from __future__ import annotations

from rankexp.analysis.cost import plan, price
from rankexp.analysis.results import Study
from rankexp.report.formats import amount, count, percent
from rankexp.report.words import hours


def plan_text(study: Study, target: float) -> str:
    """Say what would give the comparison that decided the power ``target``, and which way takes less device time.

    Raises:
        ValueError: ``target`` is no power above the study's level.
    """
    if not study.level < target < 1:
        raise ValueError(f"target is {target:g}; a power between the level, {study.level:g}, and 1 is needed.")
    verdict = study.verdict if study.complete else None
    if verdict is None:
        return f"{study.name}: undecided, because runs of the decision are missing."
    found = plan(verdict, target)
    if found is None:
        return f"{study.name}: {verdict.status}. No two ranks were compared, so there is no power to speak of."
    unit = "examples" if study.scores.examples == len(study.scores.groups) else "documents"
    cost, margin = price(study, found, verdict), amount(study.margin, study.score)
    low, high = found.compared
    ways = [
        ("seeds", found.seeds, verdict.seeds, "seeds of every rank", cost.seeds, ""),
        ("examples", found.examples, verdict.examples, f"{unit} to decide on", cost.examples, ", labels not counted"),
    ]
    lines = [
        f"{study.name}: {verdict.status}",
        f"The comparison that decided is rank {low} with rank {high}, at a margin of {margin}.",
        f"{'now':<9} {percent(found.now):>6} power with {count(verdict.seeds)} seeds and "
        f"{count(verdict.examples)} {unit}",
    ]
    for name, needed, have, what, spent, note in ways:
        if needed is None or spent is None:
            lines.append(f"{name:<9} no number of {what} alone gives {percent(target)} power")
            continue
        missing = all(way[1] is not None and way[1] > way[2] for way in ways)
        cheaper = "  <- less device time" if cost.cheaper == name and missing else ""
        more = f"{count(needed - have)} more take {hours(spent)}{note}" if needed > have else "there are enough"
        lines.append(f"{name:<9} {percent(target):>6} power with {count(needed)} {what}: {more}{cheaper}")
    lines.append("Power is the chance to accept the smaller rank if the two are truly equal.")
    return "\n".join(lines)
