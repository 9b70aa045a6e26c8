"""What a model wrote for each example of a split, and the file that holds it: JSON beside the scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from pydantic import with_config
from typing_extensions import TypedDict

from rankexp.record.files import pretty_json
from rankexp.record.json_shape import SCHEMA_VERSION, SHAPE, shaped_json


@dataclass(frozen=True)
class Generated:
    """What was written for one example.

    Attributes:
        example_id: Name of the example.
        prompt: What the model was given.
        reference: What was to be written.
        completion: What it wrote.
    """

    example_id: str
    prompt: str
    reference: str
    completion: str


@with_config(SHAPE)
class _Row(TypedDict):
    example_id: str
    prompt: str
    reference: str
    completion: str


@with_config(SHAPE)
class _File(TypedDict):
    schema: int
    rows: list[_Row]


def to_bytes(rows: Sequence[Generated]) -> bytes:
    """Serialise; :func:`of_bytes` is the inverse."""
    return pretty_json({"schema": SCHEMA_VERSION, "rows": [asdict(row) for row in rows]}).encode()


def of_bytes(data: bytes) -> tuple[Generated, ...]:
    """Read what :func:`to_bytes` wrote.

    Raises:
        ValueError: It is something else.
    """
    return tuple(Generated(**row) for row in shaped_json(_File, data)["rows"])
