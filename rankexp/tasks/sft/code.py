"""Functions of Python's standard library: their signature and docstring are given, their body is to be written.

The code is read and parsed where Python itself is installed, and never run.
"""

from __future__ import annotations

import ast
import sysconfig
import textwrap
from collections.abc import Iterator
from dataclasses import field
from pathlib import Path

from pydantic.dataclasses import dataclass

from rankexp.data.splits import Sizes
from rankexp.data.table import TaskError
from rankexp.options import CHECKED, Positive
from rankexp.tasks.base import Say
from rankexp.tasks.sft.language import LanguageTask
from rankexp.tasks.sft.prepare import Reading
from rankexp.tasks.sft.rows import Plain, SftRow

_LEFT_OUT = frozenset(
    {"site-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__", "idle_test", "turtledemo"}
)
_MOST_LINES = 25
"""Lines of a body; longer ones are left out, for nobody would guess them."""
_MOST_LETTERS = 1000
"""Of a function; longer ones are left out, so that few are cut."""


@dataclass(frozen=True, config=CHECKED, kw_only=True)
class CodeTask(LanguageTask):
    """Bodies of functions, split by module: no module has functions in two splits, and a module is a document.

    Attributes:
        per_module: Most functions of a module, spread evenly over it; more of one module would tell little more.
    """

    sizes: Sizes = field(default_factory=lambda: {"train": 600, "tune": 60, "decide": 300, "test": 300})
    max_length: Positive = 256
    max_new_tokens: Positive = 128
    per_module: Positive = 6

    @property
    def name(self) -> str:
        """Name of the task."""
        return "code"

    def read(self, say: Say, *, has_template: bool) -> Reading:
        """Read functions of all modules that have a docstring, at most 25 lines of a body, and 1,000 letters in all."""
        del has_template
        root = Path(sysconfig.get_paths()["stdlib"])
        files = [path for path in sorted(root.rglob("*.py")) if _LEFT_OUT.isdisjoint(path.relative_to(root).parts)]
        rows = tuple(row for path in files for row in _spread(list(_rows(path, root)), self.per_module))
        if not rows:
            raise TaskError(f"the standard library in {root} has no source files that could be read.")
        modules = len({row.group for row in rows})
        say(f"functions read from Python's standard library: {len(rows):,}, in {modules:,} modules")
        return Reading(rows, ())


def _spread(rows: list[SftRow], most: int) -> list[SftRow]:
    """Take so many rows at most, spread evenly."""
    return [rows[len(rows) * place // most] for place in range(most)] if len(rows) > most else rows


def _rows(path: Path, root: Path) -> Iterator[SftRow]:
    module = ".".join(path.relative_to(root).with_suffix("").parts)
    try:
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
    except (OSError, UnicodeDecodeError, SyntaxError):  # a few files are written wrongly on purpose
        return
    lines = source.splitlines(keepends=True)
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef) or ast.get_docstring(function) is None or len(function.body) < 2:
            continue
        first, last = function.body[0].end_lineno or 0, function.end_lineno or 0
        text = textwrap.dedent("".join(lines[function.lineno - 1 : last]))
        if not 0 < last - first <= _MOST_LINES or len(text) > _MOST_LETTERS or text[:1].isspace():
            continue  # of the last kind are methods with strings whose lines begin further left
        cut = len("".join(text.splitlines(keepends=True)[: first - function.lineno + 1]))
        before, answer = text[:cut], text[cut:].rstrip("\n") + "\n"
        name = f"{module}:{function.lineno}"
        yield SftRow(name, module, None, Plain(before, answer, quoted=True, question=before), f"{path.name} {name}")
