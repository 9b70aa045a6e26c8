"""The map of the code leads to files that are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAP = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`((?:[\w]+/)*[\w]+\.py|(?:[\w]+/)+)`", MAP)))


def test_it_names_files():
    assert len(NAMED) > 30


@pytest.mark.parametrize("name", NAMED)
def test_what_it_names_is_there(name):
    assert (ROOT / "rankexp" / name).exists() or (ROOT / name).exists()
