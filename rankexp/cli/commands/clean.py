"""``rankexp clean``: what may go from a workspace."""

from __future__ import annotations

import argparse

from rankexp.cli.command import Command, Section
from rankexp.cli.output import OK, say
from rankexp.cli.settings import workspace_of


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--delete", action="store_true", help="delete it; the record stays valid, and says what went")


def run(options: argparse.Namespace, rest: list[str]) -> int:
    """List what a workspace holds that nobody needs, or delete it."""
    from rankexp.option_errors import ConfigError
    from rankexp.study.clean import removable, remove

    workspace = workspace_of(rest)
    if not (workspace / "studies").is_dir():
        raise ConfigError(f"{workspace} holds no study; name the workspace with workspace=FOLDER.")
    found = removable(workspace)
    for kind in dict.fromkeys(item.kind for item in found):
        sizes = [item.size for item in found if item.kind == kind]
        plural = "s" * (len(sizes) != 1)
        say(f"{len(sizes):>6} {kind}{plural} {sum(sizes) / 2**20:>10.1f} MiB")
    total = f"{len(found)} files and folders, {sum(item.size for item in found) / 2**20:.1f} MiB"
    if not options.delete:
        say(f"{total} may go; --delete deletes them")
        return OK
    remove(workspace, found)
    say(f"{total} deleted")
    return OK


COMMAND = Command(
    Section.KEEP,
    "list what may go from a workspace: checkpoints of trials that have ended, and adapters of ranks not chosen",
    run,
    arguments,
    place=2,
)
