"""The decision table, a line a rank, and the paired differences that it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rankexp.analysis.diagnosis import Diagnosis
from rankexp.analysis.statistics.comparison import Comparison
from rankexp.analysis.statistics.verdict import RankRow, Verdict
from rankexp.analysis.study import Study
from rankexp.candidates import CandidateName
from rankexp.record.trial import Trial
from rankexp.report.canvas import WIDE, Document, Size
from rankexp.report.formats import amount, metric_of
from rankexp.report.intervals import draw_intervals, written_intervals
from rankexp.report.runs import by_seed, spread, training
from rankexp.report.section import Caption, Drawing, Link, Section

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DECISION = ("difference", "standard_error", "df", "lower", "upper", "p_worse")


def rank_table(study: Study) -> dict[str, Document]:
    """One row a rank: scores, comparison with the reference, failures, how it was trained and what it cost."""
    rows = decision_rows(study.comparison, final=study.complete)
    return {name: _rank_row(study, row) for name, row in rows.items()}


def decision_rows(comparison: Comparison, *, final: bool = True) -> dict[str, Document]:
    """One row a rank with what the scores alone say; nothing about the reference unless the decision is ``final``."""
    verdict = comparison.verdict if final else None
    return {str(rank): _decision_row(comparison, rank, verdict) for rank in comparison.scores.ranks}


def of_scores(comparison: Comparison) -> Document:
    """The table where nothing is known of how the runs were trained."""
    unknown = {"learning_rate": None, "alpha": None, "lost": "", "trainable_parameters": None}
    return {"ranks": {rank: {**row, **unknown} for rank, row in decision_rows(comparison).items()}}


def draw(doc: Document, size: Size = WIDE) -> Figure | None:
    """Draw each rank's paired difference to the reference with its interval, and the margin."""
    reference = doc["reference_rank"]
    rows = {f"rank {row['rank']}": row for row in doc["ranks"].values() if row["rank"] != reference}
    return draw_intervals(rows, doc, size, 0.42, f"difference to rank {reference}")


def caption(doc: Document) -> Caption:
    """Say how to read a bar, and give the intervals."""
    margin, reference = amount(doc["margin"], metric_of(doc)), doc["reference_rank"]
    rows = {f"rank {row['rank']}": row for row in doc["ranks"].values() if row["rank"] != reference}
    reading = (
        f"Each bar is where the true difference to rank {reference} may lie, seed by seed and example by example. A "
        f"filled ring ends right of the dotted line: that rank is shown to lose less than {margin}. A bar that lies "
        "left of zero as a whole is a rank that is worse, by how much it says."
    )
    alt = f"Paired differences to rank {reference}: {written_intervals(rows, doc)}."
    return Caption("Differences in pairs", reading, alt)


def _decision_row(comparison: Comparison, rank: int, verdict: Verdict | None) -> Document:
    means = comparison.scores.means(rank)
    decided = verdict.row(rank) if verdict is not None else None
    row: Document = {"rank": rank, **spread(means.values())}
    row |= {name: getattr(decided, name) if decided else None for name in _DECISION}
    if decided is not None:
        row |= {"mean": decided.mean, "seed_sd": decided.seed_sd}
    return {
        **row,
        "p": decided.p_noninferior if decided else None,
        "accepted": bool(decided and decided.accepted),
        "unstable": rank in comparison.unstable,
        "unlearned": rank in comparison.unlearned,
        "reading": _reading(comparison, verdict, decided) if verdict is not None and decided is not None else "",
        "seed_means": by_seed(means),
    }


def _rank_row(study: Study, row: Document) -> Document:
    done, every = study.chosen_trials(row["rank"]), study.evidence(CandidateName.of_rank(row["rank"]))
    return {**row, "seeds": len(done), **_failures(study, row["rank"], every), **training(done)}


def _reading(comparison: Comparison, verdict: Verdict, row: RankRow) -> str:
    if row.unstable:
        return "learned nothing yet" if row.rank in comparison.unlearned else "unstable"
    if row.rank in (verdict.chosen_rank, verdict.reference_rank):
        names = {verdict.reference_rank: ["reference"]}
        return ", ".join((["chosen"] if row.rank == verdict.chosen_rank else []) + names.get(row.rank, []))
    if row.lower > -verdict.margin:
        lower = ", measurably lower" if row.upper < 0 else ""
        return f"within the margin{lower}" if row.accepted else f"within the margin{lower}, not reached"
    return "worse" if row.upper < 0 else "not shown"


def _failures(study: Study, rank: int, trials: Sequence[Trial | None]) -> Document:
    results = [trial.result for trial in trials if trial is not None]
    failed = [result for result in results if result.status == "failed"]
    memory = [result for result in failed if "memory" in result.reason.lower()]
    found = list(study.diagnoses(CandidateName.of_rank(rank)).values())
    counts = {
        "diverged": sum(result.status == "diverged" for result in results),
        "collapsed": found.count(Diagnosis.COLLAPSED) + found.count(Diagnosis.DROPPED),
        "learned_nothing": found.count(Diagnosis.UNLEARNED),
        "out_of_memory": len(memory),
        "failed": len(failed) - len(memory),
        "waiting": sum(trial is None for trial in trials),
    }
    lost = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in counts.items() if number)
    return {**counts, "lost": lost}


SECTION = Section(
    place=40,
    of_study=lambda study, _: {"ranks": rank_table(study)},
    of_scores=of_scores,
    drawings=(Drawing("differences", draw, caption),),
    links=(Link("decision", "Decision", lambda doc: doc["ranks"]),),
    brief=True,
)
