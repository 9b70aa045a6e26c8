"""Base model and data of a study, found again and checked to be those that it was run on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import torch

from rankexp.analysis.study import Study
from rankexp.models.base import BaseModel, find_model
from rankexp.models.beside import also_training
from rankexp.models.kinds import kind_of_task
from rankexp.option_errors import ConfigError
from rankexp.tasks.base import TaskData, make_task

Say = Callable[[str], None]


def base_of(study: Study, device: torch.device, say: Say) -> BaseModel:
    """Find the base model of a study; the hub is not asked for what its cache on this machine lacks.

    Args:
        study: Maybe somebody else's.
        device: Where the model is going to be.
        say: Is told what is being read.

    Raises:
        ConfigError: It is another one by now.
        ModelError: It cannot be found.
    """
    kept = {**asdict(study.config.model), "dtype": study.record.model.get("dtype", "float32")}
    base = find_model(**kept, device=device, say=say, fetch=False, reads=kind_of_task(study.config.task).reads)
    base = also_training(base, study.config.lora.modules_to_save, study.config.lora.trainable_token_indices)
    _check(study, "model", base.fingerprint, study.record.model.get("found", study.record.model["fingerprint"]))
    return base


def data_of(study: Study, base: BaseModel, say: Say) -> TaskData:
    """Read the data of a study.

    Args:
        study: Maybe somebody else's.
        base: Its base model.
        say: Is told what is being read.

    Raises:
        ConfigError: They are others by now.
        TaskError: They cannot be read.
    """
    data = make_task(study.config.task).load(base.processor, say)
    _check(study, "data", data.fingerprint, study.record.data["fingerprint"])
    return data


def _check(study: Study, what: str, now: str, then: str) -> None:
    if now != then:
        raise ConfigError(f"the {what} has changed since study {study.name} was run, and what it was run on is needed.")
