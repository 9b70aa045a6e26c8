"""What makes the learning rates of a comparison valid: each condition with its evidence and its remedy."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from rankexp.analysis.check import Check, listed
from rankexp.analysis.rates import LocatedRates, located_rates
from rankexp.analysis.screen import on_edge, sampled_range
from rankexp.analysis.study import Study
from rankexp.candidates import CandidateName

_FEWEST = 3
_MOST_OF_MARGIN = 0.5


def equal_tuning(study: Study) -> Check:
    """As many tuning runs for one rank as for another."""
    name = "Equal tuning budget"
    counts = Counter(row.candidate for row in study.screen if row.rank)
    tuned = {one: counts[one] for one in map(CandidateName.of_rank, _candidates(study))}
    if not any(tuned.values()):
        return Check(name, None, "No tuning run is recorded.")
    widened = int(study.record.notes.get("widened", 0))
    suffix = f" The grid was widened {_times(widened)}, for all ranks." if widened else ""
    if study.located is not None and min(tuned.values()) >= _FEWEST:
        runs = f"{len(study.located.rows)} runs tune all ranks together on one surface"
        return Check(name, True, f"{runs}: {listed(f'{one} {count}' for one, count in tuned.items())}.")
    if len(set(tuned.values())) == 1:
        return Check(name, True, f"{next(iter(tuned.values()))} tuning runs for each rank.{suffix}")
    evidence = f"Tuning runs differ: {listed(f'{c} {n}' for c, n in tuned.items())}.{suffix}"
    return Check(name, False, evidence, "Tune every rank with the same number of runs (search.strategy=grid does).")


def tuned_rates(study: Study) -> Check:
    """Each rank was trained at the rate that is best for it on ``tune``."""
    name, best = "Learning rate tuned for each rank", study.tuned
    if not study.ranks or not best:
        return Check(name, None, "No rank has a tuned learning rate yet.")
    wrong = [one for one in study.ladder if not _uses_best(study, one)]
    if wrong:
        remedy = "Tune the rate of these ranks and train them again."
        return Check(name, False, f"Not at its best tuned rate: {listed(wrong)}.", remedy)
    rates = listed(f"{one} {best[one].learning_rate:g}" for one in study.ladder)
    stopped = len(study.pruned)
    weaker = f" {stopped} runs were stopped early, so these rates were not all tried to the end." if stopped else ""
    how = "Lowest loss on tune" if study.located is None else "Lowest loss on tune, between the rates tried"
    return Check(name, True, f"{how}: {rates}.{weaker}")


def own_tuning_runs(study: Study) -> Check:
    """The rate of each rank comes from runs of that rank, not from runs that were cut to it."""
    name = "Rates from runs of the same rank"
    if study.located is not None:
        return Check(name, True, "One surface was fitted to runs of every rank.")
    best = study.best_rates
    used = {one: study.by_key.get(best[one].key) for one in study.ladder if one in best}
    specs = {one: trial.spec for one, trial in used.items() if trial is not None}
    borrowed = [one for one, spec in specs.items() if spec.rank != one.rank]
    borrowed += [one for one, spec in specs.items() if spec.nested_ranks]
    if not used or not borrowed:
        return Check(
            name, True if used else None, "Each rank was tuned with runs of its own." if used else "Not tuned."
        )
    evidence = f"Tuned with runs of another rank that were cut to it: {listed(dict.fromkeys(borrowed))}."
    return Check(name, False, evidence, "Confirm a close choice with search=grid.", advisory=True)


def rates_inside(study: Study) -> Check:
    """The best rate of each rank lies inside the grid that was tried."""
    name = "Best rates inside the grid"
    rows = [row for row in study.screen if row.rank]
    if not any(row.status == "completed" for row in rows):
        return Check(name, None, "No tuning run has finished yet.")
    if study.located is not None:
        return _optima_inside(name, study, study.located)
    edges = on_edge(rows, sampled_range(study))
    if not edges:
        return Check(name, True, "No best rate lies on the edge of the rates tried.")
    words = {"low": "at the lowest rate", "high": "at the highest rate", "only": "the only rate tried"}
    evidence = f"On the edge: {listed(f'{c} {words[edge]}' for c, edge in edges.items())}."
    return Check(name, False, evidence, "Widen search.learning_rates on that side, or raise search.widen.")


def _optima_inside(name: str, study: Study, located: LocatedRates) -> Check:
    tried = [row.learning_rate for row in located.rows]
    found = []
    for one in (one for one in located.chosen if one in study.ladder or not study.ladder):
        low, high = located.interval(one, study.level)
        found.append(f"{one} {located.tuned(one).learning_rate:g} ({low:.2g} to {high:.2g})")
    evidence = f"Best rates with their intervals: {listed(found)}; tried were {min(tried):g} to {max(tried):g}."
    remedy = "Widen search.learning_rates on the side of the best rates, or raise search.widen."
    inside = located.surface.inside
    return Check(name, inside, evidence, "" if inside else remedy)


def rates_tuned_well(study: Study) -> Check:
    """What is not known of the best rates costs less than half the margin."""
    name = "Rates tuned well enough for the margin"
    located, picked = study.located, study.located is None
    if study.metric.generated:
        evidence = f"Rates are tuned by the loss; what they cost of the {study.metric.title} is not known."
        remedy = "Decide by the loss as well, and see whether both name one rank."
        return Check(name, None, evidence, remedy, advisory=True)
    if located is None and study.config.search.spacing:
        located = located_rates(study.screen, study.config.search.spacing)
    if located is None or math.isnan(study.margin):
        evidence = "The losses of the tuning runs do not show where a rank's best rate lies."
        return Check(name, None, evidence, "Try three or more rates (search.learning_rates).", advisory=True)
    lost = 2 * located.score_lost(study.screen_score)
    passed = lost <= _MOST_OF_MARGIN * study.margin
    how = "the best rate was taken of those tried" if picked else "each rank has the best rate of the surface"
    evidence = (
        f"By the curvature of the score, a rank may lose up to {study.metric.amount(lost)} by its rate; the margin is "
        f"{study.metric.amount(study.margin)}, and {how}."
    )
    remedy = "Tune on rates that lie closer (search.learning_rates)."
    if picked:
        remedy = "Locate the best rates between those tried: search=grid search.surface=true."
    return Check(name, passed, evidence, "" if passed else remedy)


def _candidates(study: Study) -> Sequence[int]:
    screened = {row.rank for row in study.screen if row.rank}
    return study.ranks or sorted(screened)


def _uses_best(study: Study, name: CandidateName) -> bool:
    best = study.tuned.get(name)
    if best is None:
        return False
    wanted = study.halved.get(name, best.learning_rate)
    rates = {t.spec.learning_rate for t in study.evidence(name) if t is not None}
    return all(math.isclose(rate, wanted, rel_tol=1e-9) for rate in rates)


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
