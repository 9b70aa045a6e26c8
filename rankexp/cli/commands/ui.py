"""``rankexp ui``: MLflow's pages of a workspace."""

from __future__ import annotations

import argparse

from rankexp.cli.command import Command, Section
from rankexp.cli.output import say
from rankexp.cli.settings import workspace_of


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--port", type=int, default=5000, help="port on this machine (default 5000)")
    parser.add_argument("--no-browser", action="store_true", help="print the address only")


def run(options: argparse.Namespace, rest: list[str]) -> int:
    """Open MLflow's pages."""
    from rankexp.tracking import open_ui

    return open_ui(workspace_of(rest), port=options.port, open_browser=not options.no_browser, say=say)


COMMAND = Command(
    Section.READ,
    "open MLflow's pages of a workspace",
    run,
    arguments,
    place=5,
)
