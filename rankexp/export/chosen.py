"""Which trial of a study is exported."""

from __future__ import annotations

from rankexp.analysis.scoring import tune_score
from rankexp.analysis.study import Study
from rankexp.option_errors import ConfigError, near_miss
from rankexp.record.trial import Trial
from rankexp.trial_spec import MAPPED


def choose_trial(study: Study, key: str | None = None, rank: int | None = None) -> tuple[Trial, str]:
    """Return a trial, and in a few words why this one.

    Args:
        study: The study.
        key: The trial's key; the best on ``tune`` of a rank where None.
        rank: The rank; that of the verdict where None.

    Raises:
        ConfigError: There is no such trial, or its adapter is not there.
        RecordError: A file of it is not what was recorded.
    """
    if key is not None:
        return _there(study, _of_key(study, key)), "named by its key"
    verdict = study.final_verdict
    rank = rank if rank is not None else None if verdict is None else verdict.chosen_rank
    if rank is None:
        raise ConfigError(f"study {study.name} has no verdict that names a rank; --rank or --trial names one.")
    found = [trial for trial in study.chosen_trials(rank) if not trial.cleaned]
    if not found:
        raise ConfigError(f"study {study.name} has no adapter of rank {rank} in its decision{_others(study)}.")
    best = max(found, key=lambda trial: tune_score(trial.result, study.tune_metric))
    best.check()
    return best, f"the best on tune of {len(found)} seeds" if len(found) > 1 else "the only one of its rank"


def _others(study: Study) -> str:
    there = [rank for rank in study.ranks if any(not trial.cleaned for trial in study.chosen_trials(rank))]
    return f"; there are adapters of {', '.join(map(str, there))}" if there else ""


def _of_key(study: Study, key: str) -> Trial:
    if key not in study.by_key:
        raise ConfigError(f"study {study.name} has no finished trial {key!r}{near_miss(key, list(study.by_key))}")
    return study.by_key[key]


def _there(study: Study, trial: Trial) -> Trial:
    if trial.spec.method not in MAPPED:
        raise ConfigError(f"trial {trial.key} of study {study.name} is no LoRA, but method={trial.spec.method}.")
    if trial.result.status != "completed" or trial.cleaned or not trial.adapter.is_dir():
        raise ConfigError(f"trial {trial.key} of study {study.name} has no adapter, or no longer.")
    trial.check()
    return trial
