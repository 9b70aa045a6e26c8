"""The command line: it takes the words apart, and runs what they ask for.

Everything heavy is imported inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from rankexp.cli.arguments import parser
from rankexp.cli.guard import guarded
from rankexp.cli.output import BAD_INPUT, OK, complain
from rankexp.cli.streams import outlive_readers


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        arguments: The command line without the program's name; ``sys.argv`` by default.
    """
    if arguments is None:
        if {"_ARGCOMPLETE", "COMP_LINE"} <= os.environ.keys():  # a shell asks what could be typed next
            from rankexp.cli.completion import complete

            complete()
        outlive_readers()
    given = list(sys.argv[1:] if arguments is None else arguments)
    for word in given:
        if not _is_text(word):
            complain(f"argument {word!r} is not UTF-8; rename the file, or give it through a link with another name.")
            return BAD_INPUT
    options, rest = parser(wanted=given[0] if given else "").parse_known_args(given)
    if not hasattr(options, "run"):
        parser().print_help()
        return OK if not given else BAD_INPUT
    return guarded(lambda: int(options.run(options, rest)))


def _is_text(word: str) -> bool:
    try:
        return bool(word.encode()) or not word
    except UnicodeEncodeError:  # bytes of a name that stand for no character
        return False
