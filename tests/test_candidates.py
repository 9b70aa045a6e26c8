"""Names of candidates: text in the record, and what they say of a rank."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import asdict

import pytest

from rankexp.candidates import BASE, FULL, HEAD, REFERENCES, CandidateName
from rankexp.config.groups import ContestConfig
from rankexp.option_errors import ConfigError
from rankexp.options import parse
from rankexp.record.studies import Planned


@pytest.mark.parametrize("rank", [1, 8, 4096])
def test_the_name_of_a_rank_is_read_back_as_that_rank(rank: int) -> None:
    name = CandidateName.of_rank(rank)
    assert (str(name), name.rank) == (f"r={rank}", rank)
    assert CandidateName(str(name)) == name


@pytest.mark.parametrize("text", ["head", "full", "d=1000", "nested", "r", "r=", "r=8x", "xr=8", "r=-8", "r=8\n", "8"])
def test_any_other_name_is_that_of_no_rank(text: str) -> None:
    assert CandidateName(text).rank is None


def test_a_subspace_is_called_by_its_dimensions() -> None:
    assert CandidateName.of_dimensions(1000) == "d=1000"


def test_a_name_is_its_text_wherever_it_is_written_or_looked_up() -> None:
    name = CandidateName.of_rank(8)
    assert json.dumps({name: name}) == '{"r=8": "r=8"}'
    assert {"r=8": 1}[name] == {name: 1}["r=8"] == 1
    assert f"{name:<5}|" == "r=8  |"
    for copy in (deepcopy(name), asdict(Planned("k", "p", name, 8, "tuning"))["candidate"]):
        assert (copy, type(copy)) == (name, CandidateName)


@pytest.mark.parametrize("name", [*REFERENCES, CandidateName.of_rank(8), CandidateName.of_dimensions(9)])
def test_no_contender_is_called_like_a_rank_or_a_reference(name: str) -> None:
    assert REFERENCES == (HEAD, BASE, FULL)
    with pytest.raises(ConfigError, match="calls a contender"):
        parse(ContestConfig, {"contenders": {name: {"strategy": "grid"}}})
