"""Which of the chosen rank's adapters to ship, and how much of its lead is owed to having been selected."""

from __future__ import annotations

from collections.abc import Mapping

from rankexp.analysis.scoring import tune_score
from rankexp.analysis.study import Study
from rankexp.report.canvas import Document
from rankexp.report.formats import ROUNDING, amount, count, metric_of, score, tune_metric_of
from rankexp.report.section import Link, Section, nothing


def ship(study: Study, rank: int | None) -> Document | None:
    """The seed of the chosen rank that is best on ``tune``, beside the mean of its seeds on every split.

    None where no rank is chosen, or it has one seed only. A lead on ``tune`` is partly luck, since the best was taken;
    ``test``, or ``decide`` where that was not opened, had no part in the choice of a seed and shows what is left of it.
    """
    trials = [] if rank is None else study.chosen_trials(rank)
    if rank is None or len(trials) < 2:
        return None
    tune = {trial.key: tune_score(trial.result, study.tune_metric) for trial in trials}
    best = max(trials, key=lambda trial: tune[trial.key])
    opened = study.test_scores
    fresh = {t.key: study.documents.mean(opened[t.key]) for t in trials if t.key in opened}
    by_seed = study.scores.means(rank)
    decide = {t.key: by_seed[t.spec.seed] for t in trials if t.spec.seed in by_seed}
    return {
        "rank": rank,
        "key": best.key,
        "folder": str(best.adapter.relative_to(study.store.workspace)),
        "there": not any(name.startswith("adapter/") for name in best.cleaned),
        "seed": best.spec.seed,
        "seeds": len(trials),
        "tune": _beside(tune, best.key),
        "decide": _beside(decide, best.key),
        "test": _beside(fresh, best.key),
    }


def _beside(scores: Mapping[str, float], key: str) -> Document | None:
    """One trial's score with the mean of all; None where some are missing."""
    if key not in scores or len(scores) < 2:
        return None
    return {"score": scores[key], "mean": sum(scores.values()) / len(scores)}


def sentences(doc: Document) -> list[str]:
    """Say which it is, what it scores, and how much of its lead is selection."""
    found, metric = doc["ship"], metric_of(doc)
    if not found:
        return []
    tuned_by = tune_metric_of(doc)
    lead = found["tune"]["score"] - found["tune"]["mean"]
    said = [
        f"Ship seed {found['seed']} of rank {found['rank']}, `{found['folder']}`"
        f"{'' if found['there'] else ', whose weights were cleaned away'}: it is the best of "
        f"{count(found['seeds'])} seeds on tune, {amount(lead, tuned_by)} above their mean."
    ]
    for split in ("test", "decide"):
        if fresh := found[split]:
            left = fresh["score"] - fresh["mean"]
            side = "above" if left > ROUNDING else "below" if left < -ROUNDING else "from"
            selection = f": {_selection(lead, left)}" if tuned_by == metric else ""
            said += [
                f"On {split}, which took no part in choosing the seed, it scores {score(fresh['score'], metric)}, "
                f"{amount(left, metric)} {side} their mean{selection}."
            ]
            break
    return said


def _selection(lead: float, left: float) -> str:
    """Say what share of a lead is not found again on examples that did not choose."""
    if lead <= ROUNDING or left >= lead:
        return "as far as these examples can tell, none of its lead is selection"
    if left <= 0:
        return "all of its lead is selection"
    return f"some {100 * (1 - left / lead):.0f}% of its lead is selection"


SECTION = Section(
    place=25,
    of_study=lambda study, doc: {"ship": ship(study, doc["chosen_rank"])},
    of_scores=nothing(ship=None),
    words=lambda doc: {"ship": sentences(doc)},
    links=(Link("ship", "Which adapter", lambda doc: doc["ship"]),),
)
