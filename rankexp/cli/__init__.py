"""The command line: ``rankexp COMMAND …``; see ``rankexp --help``."""

from __future__ import annotations

from rankexp.cli.main import main

__all__ = ["main"]
