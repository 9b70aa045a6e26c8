"""Content keys: the SHA-256 of canonical JSON, by which trials, studies and data are named."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

_KEY = re.compile(r"[0-9a-f]{20}")


def is_key(text: object) -> bool:
    """Whether a text can be a trial's content key, and with that the name of a folder.

    >>> is_key("0123456789abcdef0123"), is_key("../../victim")
    (True, False)
    """
    return isinstance(text, str) and _KEY.fullmatch(text) is not None


def canonical_json(value: Any) -> str:
    """Return ``value`` as JSON with sorted keys and no white space, the form that is hashed.

    Raises:
        ValueError: ``value`` holds a number that is not finite.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def content_key(value: Any, digits: int = 20) -> str:
    """Return the first hex ``digits`` of the SHA-256 of ``value``'s canonical JSON.

    >>> content_key({"a": 1, "b": 2}) == content_key({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:digits]
