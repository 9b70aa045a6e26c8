"""The decision's stage on a trainer that makes scores up: who is trained with which seeds, and when it ends."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_study import SHAPES, _study_values, make_scores

from rankexp.config import StudyConfig
from rankexp.options import parse
from rankexp.progress import Display
from rankexp.record.studies import Planned, StudyRecord, StudyStore
from rankexp.record.trial import TrialResult
from rankexp.record.trials import TrialStore
from rankexp.strategies.setting import FULL, HEAD, Candidate, Setting
from rankexp.study.protocol.decision import Decision, hopeless
from rankexp.study.protocol.trial_specs import TrialSpecs
from rankexp.trial_spec import Scoring, TrialSpec

RATE = 3e-3
Quality = Callable[[TrialSpec], float | None]
"""Accuracy of a trial; None where it diverges."""


class FakeTrainer:
    """Records what it is asked for, with scores of a made-up accuracy."""

    def __init__(self, study: StudyStore, quality: Quality) -> None:
        self.study, self.quality, self.trials = study, quality, TrialStore(study.workspace)
        self.display = Display(io.StringIO())
        self.rounds: list[list[tuple[str, int, float]]] = []

    def run_all(self, asked: list[tuple[Planned, TrialSpec]]) -> None:
        self.study.plan(*(item for item, _ in asked))
        self.rounds.append([(item.candidate, spec.seed, spec.learning_rate) for item, spec in asked])
        for _, spec in asked:
            if spec.key not in self.trials:
                self._record(spec)

    def _record(self, spec: TrialSpec) -> None:
        accuracy = self.quality(spec)
        if accuracy is None:
            self.trials.write(spec, TrialResult("diverged", "the loss was nan"), {})
            return
        scores = {one.name: make_scores(accuracy, 400, spec.seed, one.name) for one in spec.evaluate}
        metrics = {
            s: {"accuracy": v.mean("accuracy"), "loss": v.mean("loss"), "examples": 400} for s, v in scores.items()
        }
        self.trials.write(spec, TrialResult("completed", metrics=metrics), scores)


class Made:
    """A study whose screen is done, at the stage of its decision."""

    def __init__(self, folder: Path, quality: Quality, **decide: Any) -> None:
        values = _study_values(4, 0.05, (1e-3, RATE), {4: 0, 8: 0}, ("a", "b"), 400, ())
        values["config"]["decide"] |= decide
        values["config"]["references"] |= {"head": [1e-2], "full": [1e-4]}
        answer = {"label": "a", "accuracy": 0.5, "loss": 0.69}
        values["data"]["majority"] = {"tune": answer, "decide": answer}
        store = StudyStore(folder / "runs" / "studies" / "fake-01234567")
        store.write(StudyRecord(name=store.folder.name, **values))
        config = parse(StudyConfig, {**values["config"], "workspace": store.workspace})
        self.trainer = FakeTrainer(store, quality)
        specs = TrialSpecs(config, "0" * 20, "1" * 20, "float32", SHAPES)
        self.stage = Decision(config, store, specs, self.trainer, None)  # type: ignore[arg-type]
        self.chosen = [Candidate.of_rank(rank).at(RATE, 16.0) for rank in (4, 8)]
        self._screen(specs)

    def _screen(self, specs: TrialSpecs) -> None:
        tuning = [(setting, specs.tuning(setting)) for setting in self.chosen]
        items = [Planned(s.key, "screen", setting.candidate, setting.rank, "tuning") for setting, s in tuning]
        self.trainer.run_all([(item, spec) for item, (_, spec) in zip(items, tuning, strict=True)])
        self.trainer.rounds.clear()

    def run(self, references: list[Setting] | None = None) -> Any:
        return self.stage.run(self.chosen, references or [])


def by_rank(spec: TrialSpec) -> float | None:
    return {4: 0.6, 8: 0.8, 0: 0.55}.get(spec.rank if spec.rank is not None else -1, 0.82)


def test_every_rank_is_trained_with_every_seed_and_full_fine_tuning_goes_first(tmp_path: Path) -> None:
    made = Made(tmp_path, by_rank)
    study = made.run([HEAD.at(1e-2, 16.0), FULL.at(1e-4, 16.0)])
    assert made.trainer.rounds == [
        [("full", 0, 1e-4), ("head", 0, 1e-2), *((f"r={rank}", seed, RATE) for seed in range(4) for rank in (4, 8))]
    ]
    assert study.complete
    assert study.verdict.chosen_rank == 8
    assert not hopeless(study)


def test_what_is_recorded_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, reads = Made(tmp_path, by_rank), list[str]()
    real = TrialStore.read
    made.trainer.trials.read = real.__get__(made.trainer.trials)  # type: ignore[method-assign]  # what it writes, it reads
    monkeypatch.setattr(TrialStore, "read", lambda self, key: reads.append(key) or real(self, key))
    made.run()
    assert len(reads) == len(set(reads)) == 2 + 8


def test_a_first_look_that_suffices_is_the_last(tmp_path: Path) -> None:
    made = Made(tmp_path, by_rank, looks=[3, 4])
    study = made.run()
    assert {seed for _, seed, _ in made.trainer.rounds[0]} == {0, 1, 2}
    assert len(made.trainer.rounds) == 1
    assert (study.look, study.verdict.chosen_rank) == (0, 8)


def test_a_look_that_does_not_suffice_is_followed_by_the_later_seeds_alone(tmp_path: Path) -> None:
    wild = {(4, 0): 0.8, (4, 1): 0.68, (4, 2): 0.79, (4, 3): 0.8}
    made = Made(
        tmp_path,
        lambda spec: wild.get((spec.rank or 0, spec.seed), 0.75 if spec.rank else 0.55),
        looks=[3, 4],
        margin=0.002,
    )
    study = made.run([HEAD.at(1e-2, 16.0)])
    assert [sorted({seed for _, seed, _ in asked}) for asked in made.trainer.rounds] == [[0, 1, 2], [3]]
    assert "head" not in {name for name, _, _ in made.trainer.rounds[1]}, "references have had theirs"
    assert study.look == 1
    again = Made.__new__(Made)
    again.__dict__ |= made.__dict__
    again.run()
    assert {seed for asked in again.trainer.rounds[2:] for _, seed, _ in asked} <= {0, 1, 2, 3}, "nothing new"


def test_an_unstable_rank_is_trained_again_at_half_its_rate_and_then_only_there(tmp_path: Path) -> None:
    def quality(spec: TrialSpec) -> float | None:
        if spec.rank == 8 and spec.seed == 1 and spec.learning_rate == RATE:
            return None
        return {4: 0.7, 8: 0.701}.get(spec.rank or 0, 0.5) + spec.seed % 2 / 25 * (spec.rank == 4)

    made = Made(tmp_path, quality, looks=[3, 4], margin=0.001)
    study = made.run()
    assert made.trainer.rounds[1] == [("r=8", seed, RATE / 2) for seed in (0, 1, 2)]
    later = [one for asked in made.trainer.rounds[2:] for one in asked]
    assert ("r=4", 3, RATE) in later
    assert ("r=8", 3, RATE) not in later
    assert study.unstable == ()
    assert study.record.notes["halved"] == study.halved == {"r=8": RATE / 2}


def test_where_the_screen_learned_nothing_one_seed_goes_first_and_may_be_the_last(tmp_path: Path) -> None:
    made = Made(tmp_path, lambda _: 0.5)
    study = made.run([HEAD.at(1e-2, 16.0)])
    assert made.trainer.rounds == [[("head", 0, 1e-2), ("r=4", 0, RATE), ("r=8", 0, RATE)]]
    assert hopeless(study)


def test_where_that_one_has_learned_the_others_follow(tmp_path: Path) -> None:
    made = Made(tmp_path, lambda spec: 0.5 if spec.evaluate == (Scoring("tune"),) else by_rank(spec))
    study = made.run()
    assert [len(asked) for asked in made.trainer.rounds] == [2, 8]
    assert study.complete


def test_without_a_verdict_nothing_is_hopeless(tmp_path: Path) -> None:
    made = Made(tmp_path, lambda _: 0.5, verdict=False)
    study = made.run()
    assert [len(asked) for asked in made.trainer.rounds] == [8]
    assert not hopeless(study)
