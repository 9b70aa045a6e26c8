"""``rankexp decide``: the verdict on scores of another trainer."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rankexp.cli.command import Command, Section
from rankexp.cli.output import OK, complain, print_verdict, say, shown
from rankexp.cli.settings import no_more

if TYPE_CHECKING:
    from rankexp.analysis.statistics.comparison import DecisionScores
    from rankexp.metrics import Metric


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "file",
        help="CSV file with columns rank, seed, example, score, and group and weight if need be; more is better",
    )
    parser.add_argument(
        "--margin",
        help="loss of score that does not matter: 2pt or 0.02 if scores are 0/1 (default 1pt), 0.01nat for losses, "
        "else a number in their unit",
    )
    parser.add_argument("--loss", action="store_true", help="scores are losses: lower is better")
    parser.add_argument(
        "--weight",
        choices=("document", "example", "token"),
        help="what counts once in the mean that decides: a group, an example, or what column weight counts (default: "
        "token with such a column, else document)",
    )
    parser.add_argument("--level", type=float, default=0.05, help="one-sided significance level (default 0.05)")
    parser.add_argument("--unstable", type=int, nargs="+", default=[], metavar="RANK", help="ranks that diverged")
    parser.add_argument("--out", type=Path, help="folder of the report (default FILE-report)")


def run(options: argparse.Namespace, rest: list[str]) -> int:
    """Decide on scores of another trainer."""
    from rankexp.analysis.statistics.comparison import Comparison
    from rankexp.analysis.statistics.score_file import read_scores_csv
    from rankexp.metrics import LOSS
    from rankexp.option_errors import ConfigError
    from rankexp.report.build import write_document
    from rankexp.report.document import scores_document
    from rankexp.safety.printable import printable

    no_more(rest)
    file = Path(options.file)
    unstable = tuple(sorted(set(options.unstable)))
    scores, metric = read_scores_csv(file, unstable, lambda text: print(text, file=sys.stderr), options.weight)
    if options.loss:
        others = {weight: -means for weight, means in scores.other_means.items()}
        scores, metric = replace(scores, values=-scores.values, other_means=others), LOSS
    if options.margin is None and not metric.is_share:
        raise ConfigError(f"the scores of {file} are not 0 or 1; say with --margin how much of them does not matter.")
    margin = _margin(options.margin, scores, metric)
    comparison = Comparison(scores, margin, options.level, metric, unstable=unstable)
    try:
        doc = scores_document(printable(file.name), comparison)
    except ValueError as error:  # margin, level or an unstable rank out of range
        raise ConfigError(str(error)) from error
    page = write_document(doc, options.out or file.with_name(f"{file.stem}-report"))
    print_verdict(doc)
    say(f"\nreport    {shown(page)}")
    return OK


def _margin(written: str | None, scores: DecisionScores, metric: Metric) -> float:
    """Read the margin of a file of scores, and warn of one that is probably a slip."""
    import numpy as np

    from rankexp.margins import check_range, parse_margin, wide_margin
    from rankexp.option_errors import ConfigError

    try:
        margin = parse_margin("1pt" if written is None else written, metric)
        if isinstance(margin, str):
            raise ValueError("a file of scores does not say what was gained; write the margin in the scores' own unit")
        if not metric.is_share:
            given = scores.values if metric.higher_is_better else -scores.values
            check_range(margin, float(np.nanmin(given)), float(np.nanmax(given)))
    except ValueError as error:
        raise ConfigError(f"--margin is {written!r}: {error}.") from None
    if warning := wide_margin(margin, metric):
        complain(f"warning: {warning}")
    return margin


COMMAND = Command(
    Section.READ,
    "verdict and report on scores of your own trainer",
    run,
    arguments,
    settings=(),
    place=3,
)
