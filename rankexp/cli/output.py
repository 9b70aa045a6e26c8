"""What commands share: exit codes, and what they print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

OK, DEFECT, BAD_INPUT, DAMAGED, SOME_FAILED, INPUT_OUTPUT, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 4, 5, 130, 143


def print_verdict(doc: dict[str, Any]) -> None:
    """Print the verdict box in three lines."""
    said = doc["summary"]
    print(f"\n{doc['status']}: {said['headline']}")
    for line in (said["certainty"], said["test"]):
        if line:
            print(line)


def complain(sentence: str) -> None:
    """Print one sentence about what went wrong."""
    from rankexp.urls import without_secrets

    print(f"rankexp: {without_secrets(sentence)}", file=sys.stderr)


def shown(path: Path) -> str:
    """Return the path from here where that is shorter."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
