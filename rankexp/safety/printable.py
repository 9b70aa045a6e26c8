"""Text of others where people see it: on the terminal, in a report, in a spreadsheet."""

from __future__ import annotations

import re

_HIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
"""Control characters but tab and line feed, marks that turn the direction of text, and halves of characters."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")


def printable(text: str) -> str:
    r"""Write out what would steer a terminal or hide in a page instead of being seen.

    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    return _HIDDEN.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode("ascii"), text)


def cell(text: str) -> str:
    """Keep a spreadsheet from taking a text for a formula; numbers stay as they are.

    >>> cell("=1+1"), cell("-0.5"), cell("r=8")
    ("'=1+1", '-0.5', 'r=8')
    """
    quote = "'" if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text) else ""
    return quote + printable(text)


def markdown(value: object) -> str:
    r"""Escape text so that Markdown shows it as it is, on one line.

    >>> markdown("a|b <i>")
    'a\\|b \\<i\\>'
    """
    return re.sub(r"([\\`*_{}\[\]<>|#~])", r"\\\1", " ".join(str(value).split()))
