"""The search: the question that a study screens, and the strategy that answers it."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.dataclasses import dataclass
from pydantic_core import ArgsKwargs

from rankexp.config.before import BEFORE, renamed, without_leftovers
from rankexp.config.groups import Steps, distinct
from rankexp.option_errors import ConfigError, near_miss
from rankexp.options import CHECKED, Natural, Positive, Rate, plugin, plugins

_SAMPLED_STEP = 0.25
_SETS = ("alphas", "scalings")
"""Options that list values to try."""


@dataclass(frozen=True, config=CHECKED)
class SearchConfig:
    """The screen: what is tried on ``tune`` before anything is decided.

    Attributes:
        strategy: Name of the strategy, such as ``grid`` or ``tpe``.
        ranks: Candidate ranks.
        learning_rates: Learning rates to begin with; the ends of the range where rates are sampled. null: 3e-4, 1e-3
            and 3e-3 for a language model, 1e-3, 3e-3 and 1e-2 for a classifier.
        seed: Seed of the screening runs; none of the decide step's.
        steps: Steps of a screening run; null for as many as in the decide step.
        widen: How often rates may be widened where a best one lies on their edge: those of a grid, for all ranks, and
            those of references and contenders.
        surface: Whether rates are located on one surface of all runs, where the strategy can; else the best of those
            tried is taken, as in studies of before there was a surface, whose records do not have this option.
        options: The strategy's own options. They are written beside the others: ``{strategy: grid, alphas: [8, 16]}``.
    """

    strategy: str = "grid"
    ranks: list[Positive] = field(default_factory=lambda: [4, 8, 16, 32])
    learning_rates: list[Rate] = field(default_factory=lambda: [1e-3, 3e-3, 1e-2])
    seed: Natural = 1000
    steps: Steps | None = None
    widen: Annotated[Natural, Field(le=100)] = 1
    surface: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _with_options(cls, value: Any) -> Any:
        """Take the strategy's options from among the others."""
        values = value.kwargs or {} if isinstance(value, ArgsKwargs) else value
        if not isinstance(values, Mapping) or not isinstance(values.get("options", {}), Mapping):
            return value
        flat = renamed({**values.get("options", {}), **{k: v for k, v in values.items() if k != "options"}})
        own = {name: item for name, item in flat.items() if name in _own()}
        options = {name: item for name, item in flat.items() if name not in own}
        recorded = BEFORE.keys() <= values.keys()
        return {**own, "options": _checked(own.get("strategy", cls.strategy), options, recorded=recorded)}

    @field_validator("ranks", "learning_rates")
    @classmethod
    def _no_repeats(cls, values: list[Any]) -> list[Any]:
        distinct("the list", values)
        return sorted(values)

    def __post_init__(self) -> None:
        if not self.ranks or not self.learning_rates:
            raise ValueError("ranks and learning_rates need at least one value each")

    @model_serializer(mode="wrap")
    def _flat(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = serialize(self)
        options = values.pop("options")
        return {**values, **options}

    @property
    def named(self) -> dict[str, Any]:
        """The name of the strategy with its options."""
        return {"strategy": self.strategy, **self.options}

    @property
    def samples(self) -> bool:
        """Whether ``learning_rates`` are the ends of a range: so it is for strategies that are told how many trials."""
        return "trials" in self.options

    @property
    def step(self) -> float | None:
        """Distance in decades of the rates tried near the optimum; None where rates are not located on a surface.

        A grid is refined by half its step, for which it needs three rates; sampled rates are as close as half steps of
        half a decade.
        """
        strategy = self.made() if self.surface else None
        if strategy is None or not strategy.locates_rates:
            return None
        if self.samples:
            return _SAMPLED_STEP
        return self.spacing / 2 if self.spacing and len(self.learning_rates) > 2 else None

    @property
    def spacing(self) -> float | None:
        """Distance in decades of the learning rates of a grid; None where there is one rate, or a range."""
        ratio, steps = self.learning_rates[-1] / self.learning_rates[0], len(self.learning_rates) - 1
        return math.log10(ratio) / steps if steps and not self.samples else None

    def made(self) -> Any:
        """Return the strategy; None where it is not installed, since what it has found can be read without it."""
        return plugin("strategy", self.named, "search.", key="strategy") if _installed(self.strategy) else None


def _own() -> set[str]:
    return {item.name for item in dataclasses.fields(SearchConfig)} - {"options"}


def _installed(strategy: object) -> bool:
    return isinstance(strategy, str) and strategy in plugins("strategy")


def _checked(strategy: object, options: dict[str, Any], *, recorded: bool) -> dict[str, Any]:
    """Return all options of a strategy in one form; as they are where it is not installed.

    Raises:
        ConfigError: The strategy has no such option, or one is wrong.
    """
    if not _installed(strategy):
        return options
    known = _options_of(str(strategy))
    options = without_leftovers(options, known, recorded=recorded)
    for name in options:
        if name not in known:
            raise ConfigError(whose(name) or _unknown(name, known))
    made = plugin("strategy", {"strategy": strategy, **options}, "search.", key="strategy")
    form = TypeAdapter(type(made)).dump_python(made, mode="json")
    return {name: _in_order(name, form[name]) for name in form if name in known}


def _options_of(strategy: str) -> list[str]:
    """List the options of a strategy that are not the question's."""
    return [item.name for item in dataclasses.fields(plugins("strategy")[strategy].load()) if item.name not in _own()]


def whose(option: str) -> str:
    """Say which strategies have an option of ``search``; nothing where none has, or it is a slip of the question's."""
    if option == "nested_losses":
        return "option 'search.nested_losses' is called 'search.losses' now."
    if difflib.get_close_matches(option, _own(), cutoff=0.8):
        return ""
    owners = [name for name in sorted(plugins("strategy")) if option in _options_of(name)]
    return f"option 'search.{option}' is for strategy {' or '.join(owners)}." if owners else ""


def _unknown(name: str, known: list[str]) -> str:
    every = [f"search.{option}" for option in (*sorted(_own()), *known)]
    return f"unknown option 'search.{name}'{near_miss(f'search.{name}', every)}"


def _in_order(name: str, value: Any) -> Any:
    """Sort a list of values to try, of which the study is the same in any order."""
    if name not in _SETS or not isinstance(value, list):
        return value
    try:
        distinct("the list", value)
    except ValueError as error:
        raise ConfigError(f"option 'search.{name}' is {value}: {error}.") from None
    return sorted(value)
