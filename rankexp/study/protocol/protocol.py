"""The protocol of a study: screen on ``tune``, decide on ``decide``, confirm once on ``test``."""

from __future__ import annotations

from rankexp.analysis.study import Study
from rankexp.study.protocol.confirmation import Confirmation
from rankexp.study.protocol.contest import Contest
from rankexp.study.protocol.decision import Decision, hopeless
from rankexp.study.protocol.inspection import Inspection
from rankexp.study.protocol.screen import Screen
from rankexp.study.protocol.stage import Stage


class Protocol(Stage):
    """One study, stage by stage. Every stage takes what the record already holds and trains only the rest."""

    def run(self) -> Study:
        """Run every stage that is left and return the study."""
        at_hand = (self.config, self.study, self.specs, self.runner, self.storage)
        contest, screen, inspection = Contest(*at_hand), Screen(*at_hand), Inspection(*at_hand)
        contest.check()
        screen.check()
        self.runner.display.expect(self._expected(screen))
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

    def _expected(self, screen: Screen) -> int:
        """How many trials there will be if nothing is widened."""
        config = self.config
        subspaces = [config.references.subspace] * len(config.references.dimensions)
        rates = (config.references.head, config.references.full, *subspaces)
        often = config.references.seeds
        references = sum((len(tried) > 1) * len(tried) + often for tried in rates if tried)
        seeds = config.decide.looks or [len(config.decide.seeds)]
        return screen.expected() + references + len(config.search.ranks[: screen.compared]) * seeds[0]
