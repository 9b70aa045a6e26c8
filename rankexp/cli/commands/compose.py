"""``rankexp compose``: several adapters of one base as one."""

from __future__ import annotations

import argparse
from pathlib import Path

from rankexp.cli.command import Command, Section
from rankexp.cli.output import OK, say, shown
from rankexp.cli.settings import no_more

WAYS = ("sum", "svd", "ties", "dare_ties", "dare_linear", "magnitude_prune")
"""Also those of :mod:`rankexp.export.composed`, which is not loaded for a page of help."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "adapters", nargs="+", type=Path, metavar="ADAPTER", help="folders of adapters in PEFT's format"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where to write; not there yet")
    parser.add_argument("--weights", type=float, nargs="+", help="one for each adapter (default 1)")
    parser.add_argument(
        "--way",
        choices=WAYS,
        default="sum",
        help="sum: exact, with all ranks together; svd: cut to --rank; the others are PEFT's, then cut to --rank",
    )
    parser.add_argument("--rank", type=int, help="directions that are kept of each layer")
    parser.add_argument(
        "--density", type=float, default=0.5, help="share of numbers that TIES and DARE keep (default 0.5)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of what DARE drops (default 0)")


def run(options: argparse.Namespace, rest: list[str]) -> int:
    """Put adapters together, and say what of their sum is kept."""
    from rankexp.analysis.updates.adapter_folder import read_adapter
    from rankexp.analysis.updates.squeezed_folder import write_squeezed
    from rankexp.analysis.updates.used_ranks import cuts, ranks_for
    from rankexp.export.composed import composed
    from rankexp.option_errors import ConfigError

    no_more(rest)
    if options.out.exists() or options.out.is_symlink():
        raise ConfigError(f"--out is {options.out}, which is there already; nothing is written over.")
    adapters = [read_adapter(folder) for folder in options.adapters]
    weights = options.weights or [1.0] * len(adapters)
    whole = composed(adapters, weights, options.way, rank=options.rank, density=options.density, seed=options.seed)
    ranks = ranks_for(whole.layers, rank=options.rank or max(layer.rank for layer in whole.layers.values()))
    (cut,) = cuts(whole.layers, [options.rank or max(ranks.values())])
    write_squeezed(whole, ranks, options.out)
    say(
        f"{shown(options.out)}: {len(adapters)} adapters by {options.way}, {len(ranks):,} layers of rank at most "
        f"{max(ranks.values())}, which keep {cut.kept:.1%} of what was composed"
    )
    return OK


COMMAND = Command(
    Section.READ,
    "several adapters of one base as one: their exact sum, cut to a rank, TIES or DARE",
    run,
    arguments,
    settings=(),
    place=7,
)
