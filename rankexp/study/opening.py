"""Opening a study: creating ``study.json``, or checking that model and data are still what it was created with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from rankexp.config import StudyConfig
from rankexp.lora.inject import layer_names
from rankexp.lora.kinds import kind_of
from rankexp.metrics import Weight
from rankexp.models.base import BaseModel
from rankexp.models.beside import also_said, parameters_beside
from rankexp.models.loading import loading_of
from rankexp.models.quantised import count_parameters
from rankexp.option_errors import ConfigError
from rankexp.progress import Display
from rankexp.ranks import RankMap
from rankexp.record.studies import StudyRecord, StudyStore
from rankexp.study.execution.lanes import Lanes
from rankexp.tasks.base import TaskData
from rankexp.training.bench import Bench
from rankexp.training.device import find_precision
from rankexp.training.reach import reach_of


class Loaded(NamedTuple):
    """The model and the data, the lanes that train with them, and the fingerprint of the model's files alone."""

    base: BaseModel
    data: TaskData
    lanes: Lanes
    found: str


def create_or_check(
    store: StudyStore, config: StudyConfig, loaded: Loaded, ranks: Sequence[int], display: Display
) -> StudyRecord:
    """Create ``study.json``, or make sure that model and data are still those that it was created with."""
    if store.exists():
        record = store.read()
        check_same(record, loaded)
        _check_ranks(ranks, record.model["shapes"])
        return record
    with loaded.lanes.bench() as bench:
        shapes = _target_shapes(config, bench)
        _check_ranks(ranks, shapes)
        record = _new_record(store.folder.name, config, bench, shapes, loaded)
        reach = reach_of(bench.model, shapes, bench.saved)
    for sentence in (*reach.sentences, *_drawn(bench), *also_said(bench.model), *_router(bench)):
        display.say(sentence)
    if store.begun():  # as it was begun, not with this process's own options
        record = replace(record, config=store.config())
    store.write(record)
    return record


def check_same(record: StudyRecord, loaded: Loaded) -> None:
    """Make sure that model and data are those of the record.

    Raises:
        ConfigError: One of them is another.
    """
    for what, now in (("model", loaded.base.fingerprint), ("data", loaded.data.fingerprint)):
        if getattr(record, what)["fingerprint"] != now:
            raise ConfigError(
                f"the {what} has changed since study {record.name} began; start a new one with study=NAME."
            )


def _also_trained(bench: Bench) -> dict[str, Any]:
    """Return what of the base is trained whole beside LoRA, where anything is."""
    loading = loading_of(bench.model)
    if not (loading.whole or loading.rows):
        return {}
    return {"whole": list(loading.whole), "rows": list(loading.rows), "beside": parameters_beside(bench.model)}


def _drawn(bench: Bench) -> list[str]:
    """Say what of the base is new because its files lack it, and what of the files is not used."""
    loading, said = loading_of(bench.model), []
    if loading.drawn:
        names = ", ".join(loading.drawn)
        said.append(f"the model's files lack {names}: drawn at random, kept as drawn, and saved with each adapter")
    if loading.unused:
        more = f" and {len(loading.unused) - 1} more" if len(loading.unused) > 1 else ""
        said.append(f"the model's files hold weights that the model has no place for: {loading.unused[0]}{more}")
    return said


def _router(bench: Bench) -> list[str]:
    """Say that the loss which balances the router of a mixture of experts is off."""
    config: Any = bench.model.config
    balanced = getattr(config.get_text_config(), "router_aux_loss_coef", None)
    return [] if balanced is None else ["the loss that balances the experts of this mixture is off"]


def _target_shapes(config: StudyConfig, bench: Bench) -> dict[str, tuple[int, int]]:
    try:
        shapes = bench.shapes(config.lora.target_modules)
    except ValueError as error:
        raise ConfigError(f"option 'lora.target_modules': {error}") from None
    bench.check_layers(shapes)
    _check_tables(config, bench, shapes)
    return shapes


def _check_tables(config: StudyConfig, bench: Bench, shapes: Iterable[str]) -> None:
    """Refuse what needs inputs that are numbers, where a table of embeddings is adapted."""
    kinds = {name: kind_of(bench.model.get_submodule(name)) for name in shapes}
    tables = [name for name, kind in kinds.items() if kind and not kind.of_numbers]
    asked = json.dumps([*config.contest.contenders.values(), asdict(config.trial)], default=str)
    needing = [name for name in ("dora", "eva", "activation_spectrum") if f'"{name}"' in asked]
    if tables and needing:
        raise ConfigError(
            f"option 'lora.target_modules' selects {tables[0]}, a table of embeddings, around which {needing[0]} does "
            "not go here; leave one of the two out."
        )


def _new_record(
    name: str, config: StudyConfig, bench: Bench, shapes: Mapping[str, tuple[int, int]], loaded: Loaded
) -> StudyRecord:
    precision, speedup = find_precision(config.train.precision, bench.device, bench.base.dtype)
    return StudyRecord(
        name=name,
        config=config.to_dict(),
        model={
            "name": bench.base.name,
            "fingerprint": bench.base.fingerprint,
            "source": bench.base.reference,
            "parameters": count_parameters(bench.model),
            "shapes": {name: list(shape) for name, shape in shapes.items()},
            "head": list(bench.head),
            "task_type": loaded.data.objective.kind.peft_type,
            "left": [n for n in layer_names(bench.model, exclude=bench.saved) if n not in shapes],
            "found": loaded.found,
            "padding": asdict(bench.padding),
            **({"dtype": bench.base.dtype} if bench.base.dtype != "float32" else {}),
            "drawn": list(loading_of(bench.model).drawn),
            **_also_trained(bench),
            "reach": reach_of(bench.model, shapes, bench.saved).card(),
        },
        data=card_of(bench.data, config.decide.weight),
        settings={
            "precision": precision,
            "device": str(bench.device),
            "bfloat16_speedup": speedup,
            "jobs": loaded.lanes.count,
        },
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def card_of(data: TaskData, weight: Weight | None = None) -> dict[str, Any]:
    """Describe the data, with what can be had on ``tune`` and ``decide`` without reading an example.

    Args:
        data: The data.
        weight: What counts once where it is decided, as ``decide.weight``.
    """
    tune, decide = data.splits["tune"], data.splits["decide"]
    documents = decide.group_ids if weight in (None, "document") else None
    without = {
        "tune": data.objective.without_training(tune),
        "decide": data.objective.without_training(decide, documents),
    }
    return data.card() | ({"majority": without} if without["tune"] else {})


def _check_ranks(ranks: Sequence[int], shapes: Mapping[str, tuple[int, int]]) -> None:
    """Refuse ranks that a target layer cannot hold, before anything is trained."""
    for rank in ranks:
        try:
            RankMap.uniform(shapes, rank).check(shapes)
        except ValueError as error:
            raise ConfigError(str(error)) from None
