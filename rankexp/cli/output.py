"""What commands share: exit codes, and what they print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rankexp.safety.printable import printable
from rankexp.safety.secrets import without_secrets

OK, DEFECT, BAD_INPUT, DAMAGED, SOME_FAILED, INPUT_OUTPUT, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 4, 5, 130, 143


def say(text: str) -> None:
    """Print a text, whatever names of others are in it."""
    print(printable(text))


def print_verdict(doc: dict[str, Any]) -> None:
    """Print the verdict box in a few lines."""
    from rankexp.report.sections import exponential, weighting

    said = doc["summary"]
    say(f"\n{doc['status']}: {said['headline']}")
    for line in (said["certainty"], said["test"], weighting.sentence(doc), exponential.sentence(doc)):
        if line:
            say(line)


def complain(sentence: str) -> None:
    """Print one sentence about what went wrong."""
    print(f"rankexp: {one_line(sentence)}", file=sys.stderr)


def one_line(sentence: str) -> str:
    """Return a sentence on one line and without passwords, whatever names of others are in it."""
    return without_secrets(printable(sentence)).replace("\n", "\\n")


def shown(path: Path) -> str:
    """Return the path from here where that is shorter."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
