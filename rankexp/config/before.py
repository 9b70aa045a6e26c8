"""The form that ``search`` had while all strategies shared one list of options, and tasks before a model could write.

A ``study.json`` of that time is read, and the name of a study's folder is still the hash of that form, so that the same
command finds the same study. What has other names now: ``grid`` with ``first_rung`` is ``halving``, and
``nested_losses`` is the ``losses`` of ``nested``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

BEFORE: Mapping[str, Any] = {
    "first_rung": 0,
    "reduction_factor": 3,
    "alphas": [],
    "scalings": [],
    "trials": 24,
    "sampler": "tpe",
    "max_parameters": None,
    "max_adapter_mib": None,
    "shortlist": 2,
    "nested_losses": "sampled",
}
"""Options that every search had, and what they were where nothing was said."""


_WRITING = ("generate", "answer", "max_new_tokens")
"""Options of a task that say nothing where the model writes nothing."""


def task_as_before(task: Mapping[str, Any]) -> dict[str, Any]:
    """Return a task without the options that say nothing in it, for the name of its study's folder."""
    silent = () if task.get("generate") else _WRITING
    silent = silent if task.get("retain") else (*silent, "retain")
    return {name: value for name, value in task.items() if name not in silent}


def renamed(search: Mapping[str, Any]) -> dict[str, Any]:
    """Return a search with the names of today for what it says with those of before."""
    found = dict(search)
    halves = any(found.get(name, BEFORE[name]) != BEFORE[name] for name in ("first_rung", "reduction_factor"))
    if found.get("strategy", "grid") == "grid" and halves:
        found = {"first_rung": 0, "reduction_factor": 3, **found, "strategy": "halving"}
    if found.get("strategy") == "nested" and "nested_losses" in found:
        found["losses"] = found.pop("nested_losses")
    return found


def without_leftovers(options: Mapping[str, Any], known: Collection[str], *, recorded: bool) -> dict[str, Any]:
    """Leave out what a strategy does not know and what was written all the same, as it said nothing.

    Args:
        options: Options of a search.
        known: Those that its strategy has.
        recorded: Whether they are of a record of before, where also other values said nothing.
    """
    said_nothing = {name for name, value in options.items() if name in BEFORE and (recorded or value == BEFORE[name])}
    return {name: value for name, value in options.items() if name in known or name not in said_nothing}


def as_before(search: Mapping[str, Any], recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return a search in the form of before, of which the name of the folder is a hash.

    Args:
        search: The search.
        recorded: As a study's record has it, maybe with options that its strategy never used: those are hashed too.
    """
    found = {**BEFORE, **{name: value for name, value in recorded.items() if name in BEFORE}, **search}
    if found["strategy"] == "halving":
        found["strategy"] = "grid"
    if found["strategy"] == "nested":
        found["nested_losses"] = found.pop("losses", BEFORE["nested_losses"])
    return found
