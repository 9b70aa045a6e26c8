"""The few things that rankexp asks of MLflow, in batches that it accepts."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from textwrap import shorten
from typing import Any, Self, TypeVar

from rankexp.record.files import ForeignRecordError, write_atomic
from rankexp.safety.printable import printable
from rankexp.safety.secrets import without_secrets
from rankexp.tracking.local import create_database, database_path, database_uri, load_mlflow
from rankexp.tracking.own_store import open_own_store, place_of
from rankexp.tracking.protocol import TrackingError
from rankexp.tracking.rows import Point

T = TypeVar("T")
_METRICS_A_BATCH = 1000
_NAMES_A_BATCH = 100
_WAITS = (0.3, 1.0)


class Client:
    """An MLflow store, connected on first use.

    Args:
        uri: MLflow's tracking URI.
        own: The workspace whose own store it is, which is checked first; None for one that the user has named.

    Raises:
        TrackingError: Every method, where the store cannot be reached or refuses.
    """

    def __init__(self, uri: str, own: Path | None = None) -> None:
        self.uri, self._own = uri, own
        self._experiments: dict[str, str] = {}

    @classmethod
    def of_workspace(cls, workspace: Path) -> Self:
        """Return the client of a workspace's own store, ``mlflow.db`` and ``mlartifacts/``."""
        folder = Path(workspace).resolve()
        return cls(database_uri(folder / "mlflow.db"), folder)

    @property
    def _artifacts(self) -> Path | None:
        """Folder for artifacts; None leaves the place to the server."""
        database = database_path(self.uri)
        return database.parent / "mlartifacts" if database else None

    @cached_property
    def _mlflow(self) -> Any:
        mlflow = load_mlflow()
        if self._own is not None:
            open_own_store(self._own)
        elif (path := database_path(self.uri)) is not None:
            create_database(path, (path.parent / "mlartifacts").as_uri())
        return mlflow

    @cached_property
    def _client(self) -> Any:
        return self._mlflow.MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def experiment(self, name: str) -> str:
        """Id of the experiment of that name, which is made or restored where needed."""
        if name not in self._experiments:
            self._experiments[name] = self._try(lambda: self._experiment(name))
        return self._experiments[name]

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            location = None if self._artifacts is None else (self._artifacts / name).as_uri()
            try:
                return str(self._client.create_experiment(name, artifact_location=location))
            except self._mlflow.MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                return self._experiment(name)
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def add_experiment_tags(self, experiment: str, tags: Mapping[str, str]) -> None:
        """Set those tags of an experiment that it does not have."""
        present = self._try(lambda: self._client.get_experiment(experiment)).tags
        for key, value in tags.items():
            if key not in present:
                self._try(partial(self._client.set_experiment_tag, experiment, key, value))

    def create_run(self, experiment: str, tags: Mapping[str, str], start: int) -> str:
        """Begin a run and return its id."""
        run = self._try(lambda: self._client.create_run(experiment, start_time=start, tags=dict(tags)))
        return str(run.info.run_id)

    def log(
        self,
        run: str,
        points: Iterable[Point] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log metrics, params and tags."""
        entities = self._mlflow.entities
        for some in _batches(points, _METRICS_A_BATCH):
            self._batch(run, metrics=[entities.Metric(*point) for point in some])
        for pairs in _batches((params or {}).items(), _NAMES_A_BATCH):
            self._batch(run, params=[entities.Param(*pair) for pair in pairs])
        for pairs in _batches((tags or {}).items(), _NAMES_A_BATCH):
            self._batch(run, tags=[entities.RunTag(*pair) for pair in pairs])

    def _batch(self, run: str, **content: Any) -> None:
        self._try(lambda: self._client.log_batch(run, **content, synchronous=True))

    def log_dataset(self, run: str, fields: Mapping[str, str]) -> None:
        """Say which data a run used."""
        entities = self._mlflow.entities
        tag = entities.InputTag("mlflow.data.context", "training")
        given = entities.DatasetInput(entities.Dataset(**fields), [tag])
        self._try(lambda: self._client.log_inputs(run, datasets=[given]))

    def log_json(self, run: str, value: Mapping[str, Any], name: str) -> None:
        """Keep a JSON object as an artifact."""
        self.log_files(run, {name: json.dumps(dict(value), indent=2).encode()})

    def log_files(self, run: str, files: Mapping[str, bytes]) -> None:
        """Keep files as artifacts.

        Args:
            run: Id of the run.
            files: Content of each file by its path among the artifacts.
        """
        if self._own is not None:
            self._write(run, files, self._own / "mlartifacts")
            return
        with tempfile.TemporaryDirectory(prefix="rankexp-") as folder:
            for name, data in files.items():
                write_atomic(Path(folder, name), data)
            self._try(lambda: self._client.log_artifacts(run, folder))

    def _write(self, run: str, files: Mapping[str, bytes], artifacts: Path) -> None:
        """Write artifacts into the workspace's own folder, where MLflow would write through links."""
        place = place_of(self._try(lambda: self._client.get_run(run)).info.artifact_uri, artifacts)
        try:
            for name, data in files.items():
                write_atomic(place / name, data, artifacts)
        except (OSError, ForeignRecordError) as error:
            raise TrackingError(f"artifacts cannot be written in {place}: {error}".rstrip(".") + ".") from error

    def end(self, run: str, status: str, time: int | None = None) -> None:
        """Give a run its final status."""
        self._try(lambda: self._client.set_terminated(run, status, end_time=time))

    def delete(self, run: str) -> None:
        """Delete a run."""
        self._try(lambda: self._client.delete_run(run))

    def runs(self, experiment: str, study: str, **tags: str) -> list[Any]:
        """Runs of a study with these tags, newest first."""
        clauses = [f"tags.{key} = {_quoted(value)}" for key, value in {"study": study, **tags}.items()]
        found, token = [], None
        while True:
            page = self._try(partial(self._client.search_runs, [experiment], " and ".join(clauses), page_token=token))
            found += page
            if not (token := page.token):
                return found

    def find_study(self, study: str | None) -> tuple[str, str] | None:
        """Id of the experiment and name of the study that began a trial last, or of this one; None without any."""
        experiments = [e.experiment_id for e in self._try(lambda: self._client.search_experiments())]
        query = "tags.kind = 'trial'" + (f" and tags.study = {_quoted(study)}" if study else "")
        runs = self._try(lambda: self._client.search_runs(experiments, query, max_results=1))
        return (str(runs[0].info.experiment_id), str(runs[0].data.tags["study"])) if runs else None

    def _try(self, call: Callable[[], T]) -> T:
        for wait in _WAITS:
            try:
                return call()
            except TrackingError:
                raise
            except Exception:
                time.sleep(wait)
        with self._one_sentence():
            return call()

    @contextmanager
    def _one_sentence(self) -> Iterator[None]:
        try:
            yield
        except TrackingError:
            raise
        except Exception as error:
            lines = str(error).splitlines()
            reason = shorten(lines[0], 300, placeholder=" …").rstrip(".") if lines else type(error).__name__
            said = printable(without_secrets(f"the tracking store {self.uri} cannot be used: {reason}.", self.uri))
            raise TrackingError(said) from error


def _quoted(value: str) -> str:
    """Write a value into one of MLflow's searches, whose grammar knows no escapes.

    Raises:
        TrackingError: It cannot stand there.
    """
    for quote in ("'", '"'):
        if quote not in value and "\\" not in value and value.isprintable():
            return f"{quote}{value}{quote}"
    raise TrackingError(f"MLflow cannot search for {value!r:.100}, which holds quotes or control characters.")


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some
