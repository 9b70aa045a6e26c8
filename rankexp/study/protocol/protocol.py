"""The protocol of a study: screen on ``tune``, decide on ``decide``, confirm once on ``test``."""

from __future__ import annotations

from dataclasses import replace

from rankexp.analysis.study import Study
from rankexp.metrics import metric_of
from rankexp.ranks import RankMap
from rankexp.strategies.setting import BASE, FULL, Candidate
from rankexp.study.execution.forecast import Forecast, Pace, Runs
from rankexp.study.protocol.confirmation import Confirmation
from rankexp.study.protocol.contest import Contest
from rankexp.study.protocol.decision import Decision, hopeless
from rankexp.study.protocol.inspection import Inspection
from rankexp.study.protocol.screen import Screen
from rankexp.study.protocol.stage import Stage
from rankexp.training.bench import attention_of


class Protocol(Stage):
    """One study, stage by stage. Every stage takes what the record already holds and trains only the rest."""

    def run(self) -> Study:
        """Run every stage that is left and return the study."""
        at_hand = (self.config, self.study, self.specs, self.runner, self.storage)
        contest, screen, inspection = Contest(*at_hand), Screen(*at_hand), Inspection(*at_hand)
        self._check(contest, screen)
        announced = (run.trials for run in self._runs(screen) if run.stage not in ("contest", "confirmation"))
        self.runner.display.expect(sum(announced))
        chosen, references = screen.run()
        study = Decision(*at_hand).run(chosen, references)
        if hopeless(study):
            self._stop(study)
        else:
            contest.run()
            study = study.read_on()
            Confirmation(*at_hand).run(study)
            inspection.cut(study)
        inspection.read_back(study)
        return Study(self.study.folder)

    def _stop(self, study: Study) -> None:
        """Leave the rest untrained: more seeds of ranks that have learned nothing would say nothing."""
        self.runner.display.say(f"no rank beats {study.comparison.nothing}: the study stops here")
        if not study.record.notes.get("stopped"):
            self.study.note(stopped="nothing learned")

    def announce(self) -> None:
        """Say what is about to be trained, and keep that in the record for those who only watch."""
        lines = list(self.forecast().lines())
        for line in lines:
            self.runner.display.say(line)
        record = self.study.read()
        self.study.write(replace(record, settings={**record.settings, "plan": lines}))

    def forecast(self) -> Forecast:
        """Say what is about to be trained, and measure a step to say about how long that takes.

        Raises:
            ConfigError: It cannot be, whatever is measured.
        """
        at_hand = (self.config, self.study, self.specs, self.runner, self.storage)
        screen = Screen(*at_hand)
        self._check(Contest(*at_hand), screen)
        settings, ranks = self.study.read().settings, self.config.search.ranks
        largest = self.specs.evidence(Candidate.of_rank(max(ranks)).at(1e-4, self.config.lora.alpha), 0)
        lanes = self.runner.lanes
        with lanes.bench() as bench:
            splits, pace = bench.data.scored, Pace.measured(bench, largest)
            about, attention = bench.data.objective.about(splits["train"]), attention_of(bench.model)
        counts = {name: len(examples) for name, examples in splits.items()}
        side = f", {lanes.count} trials side by side" if lanes.count > 1 else ""
        setting = f"{settings['device']}, {settings['precision']}, {attention} attention{side}"
        metric, groups = metric_of(self.study.read().data, self.config.decide.score), splits["decide"].group_ids
        independent = len(set(groups.tolist()))
        return Forecast(self.config, metric, self._runs(screen), pace, lanes.count, counts, independent, about, setting)

    @staticmethod
    def _check(contest: Contest, screen: Screen) -> None:
        """Make sure that each stage can be run before anything is trained."""
        contest.check()
        screen.check()

    def _runs(self, screen: Screen) -> tuple[Runs, ...]:
        """List the trials that there will be if nothing is widened."""
        config, tuning = self.config, self.specs.tuning_steps
        ranks, often, compared = config.search.ranks, config.references.seeds, self.specs.compared
        factors = sum(RankMap.uniform(self.specs.shapes, rank).cost(self.specs.shapes) for rank in ranks) / len(ranks)
        adapter = 4.0 * (factors + self.study.read().model.get("beside", 0))
        seeds = (config.decide.looks or [len(config.decide.seeds)])[0]
        found = [Runs("screen", screen.expected(), tuning, ("tune",) * screen.scorings(), adapter)]
        whole: dict[str, float] = {FULL.name: 4.0 * self.study.read().model["parameters"]}
        for name, (candidates, rates) in screen.references.items():
            tried = len(rates) if len(rates) > 1 else 0
            steps = 0 if name == BASE.name else config.train.steps
            found += [Runs("references", tried * len(candidates), tuning, ("tune",), 0.0)]
            found += [Runs("references", often * len(candidates) * bool(rates), steps, compared, whole.get(name, 0.0))]
        found += [Runs("decision", len(ranks[: screen.compared]) * seeds, config.train.steps, compared, adapter)]
        if contenders := len(config.contest.contenders):
            found += [Runs("contest", contenders * config.contest.trials, tuning, ("tune",), adapter)]
            found += [Runs("contest", contenders * seeds, config.train.steps, compared, adapter)]
        found += [Runs("confirmation", 2 * config.confirm.seeds, config.train.steps, compared, adapter)]
        return tuple(run for run in found if run.trials)
