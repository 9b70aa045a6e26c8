"""JSON of others, checked against the version and the shape that it should have before anything is made of it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from pydantic_core import from_json
from typing_extensions import TypedDict

from rankexp.record.files import ForeignRecordError

SCHEMA_VERSION = 1
"""Of the files of the record."""
SHAPE = ConfigDict(extra="forbid", allow_inf_nan=False)
"""Of what is in a file: exactly what is named, and finite numbers."""


def shaped_json(kind: Any, data: bytes) -> dict[str, Any]:
    """Return the JSON object in ``data``, if it has the shape of ``kind``, a ``TypedDict``.

    Numbers must be finite, nothing is converted, and nesting has a limit.

    Raises:
        ValueError: It has another shape; the message is a part of a sentence that names the first place.
    """
    _checked(kind, data)
    values: dict[str, Any] = from_json(data)
    return values


def _checked(kind: Any, data: bytes) -> Any:
    """Return what pydantic makes of ``data``, whole numbers turned into floats among it, if it has the shape."""
    try:
        return _adapter(kind).validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{place}: {first['msg']}" if place else first["msg"]) from None


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


@with_config(ConfigDict(extra="ignore"))
class _Versioned(TypedDict):
    """What any file that says its version has in common."""

    schema: int


def refuse_other_version(path: Path, data: bytes) -> None:
    """Refuse a file that says that another version of rankexp wrote it.

    Raises:
        ForeignRecordError: It does.
        ValueError: It does not say which version did.
    """
    if (version := _checked(_Versioned, data)["schema"]) != SCHEMA_VERSION:
        raise ForeignRecordError(
            f"{path} is of version {version} of the record, this rankexp writes {SCHEMA_VERSION}; it is left alone."
        )
