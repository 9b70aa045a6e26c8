"""Python that was written after the beginning of a function: parsed and compared, never run."""

from __future__ import annotations

import ast
import warnings

from rankexp.metrics import Metric


def code_parses(prompt: str, completion: str, reference: str) -> float:
    r"""Return 1 where prompt and completion are Python together, else 0.

    >>> code_parses("def f():\n", "    return 1\n", ""), code_parses("def f():\n", "    return (\n", "")
    (1.0, 0.0)
    """
    del reference
    return float(_parsed(prompt + completion) is not None)


def code_match(prompt: str, completion: str, reference: str) -> float:
    r"""Return 1 where the completion has the syntax tree of the reference, whatever its spaces and comments, else 0.

    >>> code_match("def f():\n", "    return(1)  # one\n", "    return 1\n")
    1.0
    """
    found = _parsed(prompt + completion)
    return float(found is not None and found == _parsed(prompt + reference))


def _parsed(source: str) -> str | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes, such as in "\d"
            return ast.dump(ast.parse(source))
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # whatever deep or odd text makes of the parser
        return None


code_parses.metric = Metric("code_parses", "point", scale=100, decimals=2, generated=True)  # type: ignore[attr-defined]
code_match.metric = Metric("code_match", "point", scale=100, decimals=2, generated=True)  # type: ignore[attr-defined]
