"""A workspace with a study of eleven trials, and its mirror."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from mirrored import NAME, fake, last

from rankexp.analysis.study import Study, load_study
from rankexp.record.trial import Trial
from rankexp.tracking import MlflowTracker
from rankexp.tracking.local import create_database


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new database, which takes seconds to make."""
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    create_database(path, (path.parent / "mlartifacts").as_uri())
    return path


@pytest.fixture(scope="session")
def template(database: Path) -> Path:
    """A workspace with a study of eleven trials and an empty database."""
    fake(database.parent)
    return database.parent


@pytest.fixture
def workspace(tmp_path: Path, template: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "runs"))


@pytest.fixture
def study(workspace: Path) -> Study:
    return load_study(workspace / "studies" / NAME)


@pytest.fixture
def trial(study: Study) -> Trial:
    """A trial of the study with evidence on `decide`."""
    return last(study)


@pytest.fixture
def tracker(workspace: Path) -> Iterator[MlflowTracker]:
    with MlflowTracker.of_workspace(workspace) as tracker:
        yield tracker
