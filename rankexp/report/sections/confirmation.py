"""What the test split said of the chosen rank, where it was opened."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rankexp.analysis.statistics.paired import paired_difference
from rankexp.analysis.statistics.sparse import LEAST_GROUPS
from rankexp.analysis.study import Study
from rankexp.record.scores import Scores
from rankexp.report.canvas import Document
from rankexp.report.runs import spread
from rankexp.report.section import Section, nothing


def opened_test(study: Study) -> Document | None:
    """What the test split said on the chosen and the reference rank; None where it was not opened."""
    tables = {rank: _test_table(study, rank) for rank in study.ranks}
    found = {rank: table for rank, table in tables.items() if table}
    if not found or study.verdict is None:
        return None
    row: Document = {
        "examples": max(len(s.example_ids) for s in study.test_scores.values()),
        "ranks": {str(rank): spread(map(study.documents.mean, table.values())) for rank, table in found.items()},
    }
    pair = (study.verdict.chosen_rank, study.verdict.reference_rank)
    return {**row, **_test_difference(study, found, pair)}


def trained_anew(study: Study) -> Document | None:
    """What the pair scores on the test split with seeds that nobody had seen; None where none were trained."""
    verdict, opened = study.verdict, study.test_scores
    if verdict is None or verdict.chosen_rank is None:
        return None
    pair = (verdict.chosen_rank, verdict.reference_rank)
    runs = {rank: study.trained_anew(rank) for rank in pair}
    found = {rank: {t.spec.seed: opened[t.key] for t in of if t and t.key in opened} for rank, of in runs.items()}
    lost = sum(trial is not None and trial.result.status != "completed" for of in runs.values() for trial in of)
    if not (lost or all(found.values())):
        return None
    difference = {**_test_difference(study, found, pair), **({"confirmed": False} if lost else {})}
    means = {str(rank): spread(map(study.documents.mean, table.values())) for rank, table in found.items()}
    return {"seeds": max(map(len, runs.values())), "lost": lost, "ranks": means, **difference}


def _test_table(study: Study, rank: int) -> dict[int, Scores]:
    opened = study.test_scores
    return {t.spec.seed: opened[t.key] for t in study.chosen_trials(rank) if t.key in opened}


def _test_difference(study: Study, tables: Mapping[int, dict[int, Scores]], pair: tuple[int | None, int]) -> Document:
    empty: Document = dict.fromkeys(("difference", "lower", "upper", "level", "confirmed"))
    chosen, reference = pair
    if chosen is None or chosen == reference or chosen not in tables or reference not in tables:
        return empty
    seeds = sorted(tables[chosen].keys() & tables[reference].keys())
    if not seeds:
        return empty
    cells = [[study.documents.values(tables[rank][seed])[1] for seed in seeds] for rank in (chosen, reference)]
    values = np.array(cells)
    if len(seeds) < 2 or values.shape[2] < LEAST_GROUPS:
        return {**empty, "difference": float(values[0].mean() - values[1].mean())}
    found = paired_difference(values, 0, 1, study.comparison.span)
    return {
        "difference": found.mean,
        "lower": found.lower(study.level),
        "upper": found.upper(study.level),
        "level": study.level,
        "confirmed": found.noninferior(study.margin, study.level),
    }


SECTION = Section(
    place=10,
    of_study=lambda study, _: {"test": opened_test(study), "anew": trained_anew(study)},
    of_scores=nothing(test=None, anew=None),
    brief=True,
)
