"""The screen of a study: every rank and reference tuned on ``tune``, before anything is decided."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from rankexp.analysis.screen import ScreenRow
from rankexp.candidates import CandidateName
from rankexp.margins import gain_share
from rankexp.option_errors import ConfigError
from rankexp.strategies.base import Found, Question, Search, Strategy, best_of_each, make_strategy
from rankexp.strategies.grid import Grid
from rankexp.strategies.setting import BASE, FULL, HEAD, Candidate, Setting, Variant
from rankexp.study.protocol.stage import Stage
from rankexp.study.search.driver import Driver, Entrant
from rankexp.study.search.optuna_strategy import Sampled
from rankexp.study.search.questions import screen_question
from rankexp.study.search.sampled import SampledScreen
from rankexp.tasks.base import RETAIN


class Screen(Stage):
    """The tuning runs of one study, of which only those that the record lacks are trained."""

    def check(self) -> None:
        """Make sure, before anything is trained, that references are there for the margin, and can be trained.

        Raises:
            ConfigError: It is a share of the gain over the head alone, which is left out; or a reference trains weights
                that are kept in 4 bits.
        """
        margin, config = self.config.decide.margin, self.config
        if config.model.quantise and (config.references.full or config.references.subspace):
            raise ConfigError(
                "option 'references.full' trains all weights, which model.quantise keeps in 4 bits; leave it out with "
                "references.full=[] references.subspace=[]."
            )
        if gain_share(margin) and config.decide.verdict and self._has_head and not config.references.head:
            raise ConfigError(
                f"option 'decide.margin' is {margin!r}, a share of the gain over the head alone, which references.head "
                "leaves out; give that a rate, or write the margin in nats, such as 0.01nat."
            )

    def run(self) -> tuple[list[Setting], list[Setting]]:
        """Let the strategy search and tune every reference, and return the settings that are gone on with."""
        found, rows, references = self._sampled() if isinstance(self.strategy, Sampled) else self._driven()
        self._note(found, rows)
        chosen = sorted(found.settings, key=lambda setting: setting.rank or 0)
        return chosen, [setting for one in references.values() for setting in one.settings]

    def expected(self) -> int:
        """How many tuning runs of ranks there will be if nothing is widened."""
        return self.strategy.expected(self.question)

    def scorings(self) -> int:
        """How often each of them is scored on *tune*."""
        return self.strategy.scorings(self.question)

    @property
    def compared(self) -> int:
        """Most ranks that go on to the decision."""
        return self.strategy.compared(self.question)

    @cached_property
    def strategy(self) -> Strategy:
        """Who searches."""
        return make_strategy(self.config.search.named, "search.")

    @cached_property
    def question(self) -> Question:
        """What it is asked."""
        return screen_question(self.specs, self.study, self.runner.trials)

    def _sampled(self) -> tuple[Found, list[ScreenRow], dict[str, Found]]:
        """Let Optuna keep its own account of the runs, then tune the references."""
        assert isinstance(self.strategy, Sampled)
        stage = (self.config, self.study, self.specs, self.runner, self.storage)
        rows = SampledScreen(*stage, self.strategy, self.question).run()
        references = self._driver(0).drive(self._references())
        return self.strategy.found(rows, self.question), rows, references

    def _driven(self) -> tuple[Found, list[ScreenRow], dict[str, Found]]:
        """Drive the search with the references beside it or after it."""
        ranks = Entrant(self.strategy.search(self.question), "screen", halving=self.specs.halving)
        driver, references = self._driver(self.expected()), self._references()
        if self.strategy.beside_references:
            found = driver.drive({"": ranks, **references})
        else:
            found = driver.drive({"": ranks}) | driver.drive(references)
        rows = [row for setting, gave in ranks.tried if not setting.cuts for row in gave]
        return found.pop(""), rows, found

    def _driver(self, expected: int) -> Driver:
        lists = self.references
        tuned = sum(len(candidates) * len(rates) for candidates, rates in lists.values() if len(rates) > 1)
        return Driver(self.specs, self.runner, announced=expected + tuned)

    def _references(self) -> dict[str, Entrant]:
        lists = self.references
        return {name: Entrant(self._tuned(*lists[name]), "reference") for name in lists if lists[name][1]}

    @cached_property
    def references(self) -> dict[str, tuple[list[Candidate], list[float]]]:
        """What the ranks are seen against, with its learning rates; none where it is left out."""
        references = self.config.references
        subspaces = {CandidateName.of_dimensions(n): Variant("subspace", dimension=n) for n in references.dimensions}
        dimensions = [Candidate(name, None, variant) for name, variant in subspaces.items()]
        bare = (HEAD, references.head) if self._has_head else (BASE, [0.0] if self._base_wanted else [])
        return {
            bare[0].name: ([bare[0]], bare[1]),
            FULL.name: ([FULL], references.full),
            "subspace": (dimensions, references.subspace),
        }

    @property
    def _base_wanted(self) -> bool:
        """Whether the model as it is gets scored: what is gained, written or forgotten may be seen against it."""
        task, shared = self.config.task, gain_share(self.config.decide.margin) is not None
        return shared or bool(self.config.references.head or task.get("generate") or task.get(RETAIN))

    @cached_property
    def _has_head(self) -> bool:
        """Whether something of the model is new; else the model as it is takes the place of its head alone."""
        return self.study.read().has_head

    def _tuned(self, candidates: Sequence[Candidate], rates: Sequence[float]) -> Search:
        """Tune a reference; a single rate needs no tuning."""
        alpha, rows = self.config.lora.alpha, list[ScreenRow]()
        if len(rates) > 1:
            grid = Grid(tuple(candidates), tuple(sorted(rates)), (alpha,), self.config.search.widen)
            rows = yield from grid.rounds()
        settings = best_of_each(candidates, rows, rates, alpha)
        return Found(settings, settings[0])

    def _note(self, found: Found, rows: Sequence[ScreenRow]) -> None:
        """Note what the strategy says, and what rank, alpha and rate had to do with the loss of its runs.

        A curve's rows are not runs of their own and explain nothing.
        """
        from rankexp.study.search.importance import importance

        mattered = importance([row for row in rows if row.rank])
        facts = {**found.notes, **({"importance": mattered} if mattered else {})}
        if facts:
            self.study.note(**facts)
