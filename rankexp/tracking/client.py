"""The few things that rankexp asks of MLflow, in batches that it accepts."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from rankexp.tracking.local import create_database, database_path, load_mlflow
from rankexp.tracking.protocol import TrackingError
from rankexp.tracking.rows import Point

T = TypeVar("T")
_METRICS_A_BATCH = 1000
_NAMES_A_BATCH = 100
_WAITS = (0.3, 1.0)
_PASSWORD = re.compile(r"//[^/@]*@")


class Client:
    """An MLflow store, connected on first use.

    Args:
        uri: MLflow's tracking URI.
        artifacts: Folder for artifacts; None leaves the place to the server.

    Raises:
        TrackingError: Every method, where the store cannot be reached or refuses.
    """

    def __init__(self, uri: str, artifacts: Path | None) -> None:
        self.uri, self.artifacts = uri, artifacts
        self._experiments: dict[str, str] = {}

    @cached_property
    def _mlflow(self) -> Any:
        mlflow = load_mlflow()
        if (path := database_path(self.uri)) is not None:
            create_database(path, ((self.artifacts or path.parent / "mlartifacts").absolute()).as_uri())
        return mlflow

    @cached_property
    def _client(self) -> Any:
        return self._mlflow.MlflowClient(tracking_uri=self.uri)

    def experiment(self, name: str) -> str:
        """Id of the experiment of that name, which is made or restored where needed."""
        if name not in self._experiments:
            self._experiments[name] = self._try(lambda: self._experiment(name))
        return self._experiments[name]

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            location = None if self.artifacts is None else (self.artifacts.absolute() / name).as_uri()
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
        self._try(lambda: self._client.log_dict(run, dict(value), name))

    def log_folder(self, run: str, folder: Path, name: str) -> None:
        """Keep the files of a folder as artifacts."""
        self._try(lambda: self._client.log_artifacts(run, str(folder), name))

    def end(self, run: str, status: str, time: int | None = None) -> None:
        """Give a run its final status."""
        self._try(lambda: self._client.set_terminated(run, status, end_time=time))

    def delete(self, run: str) -> None:
        """Delete a run."""
        self._try(lambda: self._client.delete_run(run))

    def runs(self, experiment: str, study: str, **tags: str) -> list[Any]:
        """Runs of a study with these tags, newest first."""
        clauses = [f"tags.{key} = '{value}'" for key, value in {"study": study, **tags}.items()]
        found, token = [], None
        while True:
            page = self._try(partial(self._client.search_runs, [experiment], " and ".join(clauses), page_token=token))
            found += page
            if not (token := page.token):
                return found

    def find_study(self, study: str | None) -> tuple[str, str] | None:
        """Id of the experiment and name of the study that began a trial last, or of this one; None without any."""
        experiments = [e.experiment_id for e in self._try(lambda: self._client.search_experiments())]
        query = "tags.kind = 'trial'" + (f" and tags.study = '{study}'" if study else "")
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
            reason = str(error).splitlines()[0][:300].rstrip(".") if str(error) else type(error).__name__
            place = _PASSWORD.sub("//", self.uri)
            raise TrackingError(f"the tracking store {place} cannot be used: {_PASSWORD.sub('//', reason)}.") from error


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some
