"""Studies of the time when all strategies shared one list of options: which of them are gone on with."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from rankexp.config import StudyConfig
from rankexp.config.before import BEFORE
from rankexp.option_errors import ConfigError
from rankexp.options import parse
from rankexp.progress import Display
from rankexp.record.studies import StudyStore
from rankexp.study import session

OLDER = {
    "strategy": "grid", "ranks": [4, 8, 16, 32], "learning_rates": [1e-3, 3e-3, 1e-2], "seed": 1000, "steps": None,
    "widen": 1, **BEFORE,
}  # fmt: skip
"""A search as `study.json` held it then."""
IN_VAIN = [
    ("s-2446633d", {}, {"shortlist": 3}),
    ("s-fbb2589e", {}, {"trials": 40, "sampler": "nsga2"}),
    ("s-5b3e3ce6", {"strategy": "nested", "nested_losses": "summed"}, {"trials": 9}),
    ("s-462c4563", {"strategy": "tpe", "alphas": [8.0]}, {"reduction_factor": 2}),
    ("s-fe8a7c22", {"first_rung": 15}, {"shortlist": 4}),
]
"""What that version called the folder of a study, what its search said, and what it said besides in vain."""


def of(search: dict[str, Any]) -> StudyConfig:
    model = {"name": "tiny", "source": "config", "architecture": {"model_type": "bert"}}
    return parse(StudyConfig, {"study": "s", "model": model, "task": {"name": "csv", "path": "x"}, "search": search})


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[StudyConfig, Path]]:
    """What was gone on with, of which nothing is trained."""
    found: list[tuple[StudyConfig, Path]] = []
    monkeypatch.setattr(session, "_run", lambda config, folder, *_, **__: found.append((config, folder)))
    return found


def begun(workspace: Path, name: str, search: dict[str, Any]) -> Path:
    """Record that a study was begun with a search, as a version of before wrote it."""
    folder = workspace / "studies" / name
    StudyStore(folder).begin({**of(search).to_dict(), "search": search})
    return folder


@pytest.mark.parametrize(("name", "said", "in_vain"), IN_VAIN)
def test_what_an_older_search_said_in_vain_is_in_the_name_of_its_folder_and_nowhere_else(
    tmp_path: Path, ran: list[tuple[StudyConfig, Path]], name: str, said: dict[str, Any], in_vain: dict[str, Any]
) -> None:
    folder = begun(tmp_path, name, {**OLDER, **said, **in_vain})
    session.resume_study(folder, Display(io.StringIO()))
    ((config, where),) = ran
    assert where == folder
    assert config.search == of({**OLDER, **said}).search
    assert config.study_folder.name != name


@pytest.mark.parametrize("search", [OLDER, {"strategy": "squeeze", "shortlist": 3}])
def test_a_study_whose_name_is_not_that_of_its_configuration_is_not_gone_on_with(
    tmp_path: Path, ran: list[tuple[StudyConfig, Path]], search: dict[str, Any]
) -> None:
    name = of(search).study_folder.name
    session.resume_study(begun(tmp_path, name, search), Display(io.StringIO()))
    assert len(ran) == 1
    with pytest.raises(ConfigError, match="renamed or altered since, as its name is not that of its configuration"):
        session.resume_study(begun(tmp_path, "s-01234567", search), Display(io.StringIO()))
    with pytest.raises(ConfigError, match="renamed or altered since"):
        session.resume_study(begun(tmp_path / "other", name, {**search, "widen": 7}), Display(io.StringIO()))
    assert len(ran) == 1
