"""JSON of others, checked against the shape that it should have before anything is made of it."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError


def shaped_json(kind: Any, data: bytes) -> dict[str, Any]:
    """Return the JSON object in ``data``, if it has the shape of ``kind``, a ``TypedDict``.

    Numbers must be finite, nothing is converted, and nesting has a limit.

    Raises:
        ValueError: It has another shape; the message is a part of a sentence that names the first place.
    """
    try:
        _adapter(kind).validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{place}: {first['msg']}" if place else first["msg"]) from None
    values: dict[str, Any] = json.loads(data)
    return values


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
