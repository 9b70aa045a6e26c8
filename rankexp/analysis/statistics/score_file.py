"""Scores that somebody else's trainer wrote: a table with a row for each rank, seed and example."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from rankexp.analysis.statistics.comparison import DecisionScores
from rankexp.analysis.statistics.weighted import Floats, other_weights, over_documents
from rankexp.data.readers import read_table
from rankexp.data.table import ABSENT, Table, Value, brief, is_missing
from rankexp.metrics import BEFORE, SCORE, Metric, Weight
from rankexp.option_errors import ConfigError

COLUMNS = ("rank", "seed", "example", "score")
FURTHER = ("group", "weight")
"""Columns that need not be there."""
_LONGEST = 400
"""Characters of the longest number."""
_LARGEST = 2**53
"""Largest rank or seed: beyond it a number in a file may have lost digits."""


def read_scores_csv(
    path: Path,
    unstable: Collection[int] = (),
    say: Callable[[str], None] = lambda _: None,
    weight: Weight | None = None,
) -> tuple[DecisionScores, Metric]:
    """Read the columns rank, seed, example and score, and group and weight where there are such; others are ignored.

    A row that is missing or has no score is a missing score: its seed then counts for no rank, unless the rank is
    ``unstable``. Examples of one group (a document) are averaged, since they are no independent evidence. A weight,
    such as how many numbers its score is the mean of, is how much an example counts.

    Args:
        path: A table in a format that :func:`rankexp.data.readers.read_table` reads.
        unstable: Ranks that diverged, whose missing seeds cost the others none.
        say: Is told what had to be decided to read the file.
        weight: What counts once; None for a token where there are weights, else a document.

    Returns:
        The scores, and what they are: shares of right answers where every score is 0 or 1 and none weighs more.

    Raises:
        ConfigError: The file cannot be read, or is no such table; the message names column and row.
    """
    table = _read(path, say)
    for name in ("rank", "seed"):
        table[name] = _whole_numbers(path, table, name)
    table["score"] = _scores(path, table)
    table["weight"] = _weights(path, table)
    _refuse(path, table.duplicated(["rank", "seed", "example"]), "repeats the rank, seed and example of an earlier row")
    by_weight = table["weight"].nunique() > 1 and weight in (None, "token")
    shares = table["score"].dropna().isin([0.0, 1.0]).all() and not by_weight
    metric = BEFORE[0] if shares else SCORE
    return _table(path, table, unstable, weight), metric


def _read(path: Path, say: Callable[[str], None]) -> pd.DataFrame:
    """Read every field as text; the index is the row's number in the file."""
    if not os.path.lexists(path):
        raise ConfigError(f"there is no file {path}.")
    found = read_table(path, "FILE", ".csv")
    if not found.names:
        raise ConfigError(f"{path} cannot be read as CSV: it is empty.")
    columns = {name: found.whole(name, found.cells(column)) for name, column in _columns(path, found).items()}
    for note in (*found.notes, *(note for column in columns.values() for note in column.notes)):
        say(note.sentence())
    texts = {name: _texts(found, column.values) for name, column in columns.items()}
    table = pd.DataFrame(texts, index=list(found.numbers), dtype=str)
    if missing := [name for name in COLUMNS if name not in table.columns]:
        listed = ", ".join(brief(name) for name in found.names[:20])
        raise ConfigError(
            f"{path} has no column {missing[0]!r}; the columns rank, seed, example and score are needed, and it has "
            f"{listed}."
        )
    table = table.loc[(table != "").any(axis=1)]  # blank lines
    if table.empty:
        raise ConfigError(f"{path} has no rows.")
    if "group" not in table.columns:
        table = table.assign(group=table["example"])
    _refuse(path, (table["example"] == "") | (table["group"] == ""), "has an empty example or group")
    groups = table.groupby("example")["group"].nunique()
    if (groups > 1).any():
        raise ConfigError(f"{path} puts example {groups.index[groups > 1][0]!r} into more than one group.")
    return table


def _columns(path: Path, found: Table) -> dict[str, str]:
    """Find the columns that are needed, in any case; each maps to its name in the file."""
    columns: dict[str, str] = {}
    for name in found.names:
        if (plain := name.strip().lower()) in (*COLUMNS, *FURTHER):
            if plain in columns or name in found.repeated:
                raise ConfigError(f"{path} has more than one column {plain!r}.")
            columns[plain] = name
    return columns


def _texts(found: Table, values: Sequence[Value]) -> list[str]:
    return [_text(value, found, index) for index, value in enumerate(values)]


def _text(value: Value, found: Table, index: int) -> str:
    """Return what a field of text would hold; a row that lacks the column has none."""
    if value is ABSENT or is_missing(value):
        return ""
    if isinstance(value, list | dict | bytes) or "\0" in (text := str(value)):
        raise ConfigError(f"{found.place(index)} holds {brief(value)}; a number or a name is needed.")
    return text.lstrip(" ")


def _whole_numbers(path: Path, table: pd.DataFrame, name: str) -> pd.Series[int]:
    numbers = _numbers(table[name])
    least = 1 if name == "rank" else 0
    whole = (numbers % 1 == 0) & (numbers >= least) & (numbers <= _LARGEST)
    _refuse(path, ~whole, f"has no whole number from {least} to {_LARGEST:,} as its {name}")
    return numbers.astype(int)


def _scores(path: Path, table: pd.DataFrame) -> pd.Series[float]:
    given = table["score"].str.strip().str.lower()
    known = given.replace({"true": "1", "false": "0", "na": "", "nan": "", "none": "", "null": ""})
    numbers = _numbers(known)
    _refuse(path, (numbers.isna() & (known != "")) | np.isinf(numbers), "has a score that is no finite number")
    return numbers.astype(float)


def _weights(path: Path, table: pd.DataFrame) -> pd.Series[float]:
    """Return how much each example counts; 1 where nothing says it."""
    if "weight" not in table.columns:
        return pd.Series(1.0, index=table.index)
    weights = _numbers(table["weight"])
    _refuse(path, ~(weights > 0) | np.isinf(weights), "has no number above 0 as its weight")
    first = weights.groupby(table["example"]).transform("first")
    _refuse(path, weights != first, "gives an example another weight than an earlier row")
    return weights


def _numbers(texts: pd.Series[str]) -> pd.Series[float]:
    """Read numbers; what is none, or has so many digits that it is none here, becomes NaN."""
    return pd.to_numeric(texts.where(texts.str.len() < _LONGEST, ""), errors="coerce").astype(float)


def _table(path: Path, table: pd.DataFrame, unstable: Collection[int], weight: Weight | None) -> DecisionScores:
    ranks, seeds = sorted(table["rank"].unique().tolist()), sorted(table["seed"].unique().tolist())
    known = table.drop_duplicates("example").set_index("example").sort_index()
    examples, weights = known["group"], known["weight"].to_numpy(dtype=np.float64)
    full = pd.MultiIndex.from_product([ranks, seeds, examples.index])
    scores = table.set_index(["rank", "seed", "example"])["score"].reindex(full).to_numpy()
    cells = scores.reshape(len(ranks), len(seeds), len(examples))
    groups, index = np.unique(examples.to_numpy(dtype=str), return_inverse=True)
    if len(groups) < 2:
        raise ConfigError(f"{path} has one example or group; at least 2 are needed to tell chance from effect.")
    missing = np.isnan(cells)
    missing[[k for k, rank in enumerate(ranks) if rank in unstable and len(set(ranks) - set(unstable))]] = False
    if missing.any(axis=(0, 2)).all():
        k, s, n = (int(place[0]) for place in np.nonzero(missing))
        raise ConfigError(
            f"{path} has no seed that is complete for every rank; rank {ranks[k]}, seed {seeds[s]}, "
            f"example {examples.index[n]!r} is missing, for one."
        )
    counts = weights if np.ptp(weights) > 0 else None
    kind = replace(SCORE, weighted=counts is not None)
    weight = weight or kind.usual_weight
    if weight == "token" and counts is None:
        raise ConfigError(f"--weight is token, and {path} has no column weight of different numbers.")

    def over(what: Weight) -> Floats:
        rows = [over_documents(row, index, counts, what) for row in cells.reshape(-1, len(examples))]
        return np.array(rows).reshape(len(ranks), len(seeds), len(groups))

    several = len(groups) < len(examples)
    others = {other: over(other).mean(axis=2) for other in other_weights(kind, weight, documents=several)}
    answered = several and weight == "example" and counts is None and np.isin(scores[~np.isnan(scores)], (0, 1)).all()
    right, names = over("document") if answered else None, tuple(groups.tolist())
    return DecisionScores(over(weight), tuple(ranks), tuple(seeds), names, len(examples), weight, right, others)


def _refuse(path: Path, wrong: pd.Series[bool], what: str) -> None:
    if wrong.any():
        raise ConfigError(f"{path}: row {wrong.index[wrong][0]} {what}.")
