"""An adapter of anybody, scored whole and cut on the data of a task."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rankexp.analysis.updates.adapter_folder import PREFIX, AdapterFolder
from rankexp.analysis.updates.squeezed_folder import write_squeezed
from rankexp.analysis.updates.used_ranks import ladder
from rankexp.metrics import Metric
from rankexp.models.base import find_model
from rankexp.models.kinds import kind_of_task
from rankexp.models.loading import head_names
from rankexp.option_errors import ConfigError
from rankexp.record.scores import Scores
from rankexp.tasks.base import make_task
from rankexp.training.bench import Bench
from rankexp.training.cut_scores import WHOLE, score_cuts
from rankexp.training.device import find_device


def examined(
    adapter: AdapterFolder, model: Mapping[str, Any], task: Mapping[str, Any], device: str, say: Callable[[str], None]
) -> tuple[dict[int, Scores], list[Metric], str]:
    """Score an adapter on every example of a task.

    Args:
        adapter: The adapter.
        model: Options of its base model.
        task: Options of the task.
        device: Where to score.
        say: Is told what is being done.

    Returns:
        Scores by rank, -1 for the whole adapter and 0 for the model as it is; the metrics; and what was scored.

    Raises:
        ConfigError: The adapter does not fit the model or the task.
    """
    made = make_task(task)
    place = find_device(device)
    base = find_model(**model, device=place, say=say, reads=kind_of_task(task).reads)
    data = made.load(base.processor, say)
    bench = Bench.load(base, data, place)
    brought = [key.removeprefix(PREFIX) for key in adapter.others]
    for name in head_names(bench.model):
        if not any(key.startswith(f"{name}.") for key in brought):
            raise ConfigError(f"the adapter brings no {name}, which task {task.get('name')} needs; name its own task.")
    ranks = [rank for rank in ladder(adapter.layers) if rank < max(layer.rank for layer in adapter.layers.values())]
    with tempfile.TemporaryDirectory() as folder:
        files = adapter.folder
        if adapter.method == "AdaLoRA":  # as plain LoRA, which it is once it has been trained
            files = Path(folder) / "plain"
            write_squeezed(adapter, {name: layer.rank for name, layer in adapter.layers.items()}, files)
        try:
            scores = dict(score_cuts(bench, files, ranks, say))
        except ValueError as error:
            raise ConfigError(f"the adapter does not go with this model and task: {error}.") from None
    count = len(scores[WHOLE])
    return scores, list(data.objective.metrics), f"{count:,} of {data.task}"
