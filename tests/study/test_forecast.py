"""About how long a study takes, from the pace that was measured."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from rankexp.config import StudyConfig
from rankexp.metrics import ACCURACY
from rankexp.options import parse
from rankexp.strategies.base import make_strategy
from rankexp.study.execution.forecast import Forecast, Pace, Runs


def forecast(pace: Pace, lanes: int = 1) -> Forecast:
    model = {"name": "tiny", "source": "config", "architecture": {"model_type": "bert"}}
    config = parse(StudyConfig, {"study": "s", "model": model, "task": {"name": "csv", "path": "x"}})
    runs = (
        Runs("screen", 3, 60, ("tune",), 1000.0),
        Runs("decision", 2, 60, ("train", "tune", "decide"), 1000.0),
    )
    counts = {"train": 4800, "tune": 400, "decide": 2000, "test": 2000}
    return Forecast(config, ACCURACY, runs, pace, lanes, counts, 1990, "", "cpu, float32")


def test_time_is_steps_and_scoring_of_every_trial_shared_by_the_lanes_and_train_is_scored_on_a_sample():
    pace = Pace(step=0.5, example=0.01)
    screen, decision = 3 * (60 * 0.5 + 400 * 0.01), 2 * (60 * 0.5 + (500 + 400 + 2000) * 0.01)
    opening = 2 * 5 * 2000 * 0.01  # both ranks of five seeds on test
    assert forecast(pace).seconds == screen + decision + opening
    assert forecast(pace, lanes=2).seconds == (screen + decision + opening) / 2


def test_test_is_opened_for_a_verdict_alone_and_what_is_written_takes_time():
    pace, plain = Pace(step=0.5, example=0.01, written=0.1), forecast(Pace(step=0.5, example=0.01))
    assert forecast(pace).seconds == pytest.approx(plain.seconds + 2 * 2000 * 0.1 + 2 * 5 * 2000 * 0.1)
    described = replace(plain, config=parse(StudyConfig, {**plain.config.to_dict(), "decide": {"verdict": False}}))
    assert described.seconds == plain.seconds - 2 * 5 * 2000 * 0.01


@pytest.mark.parametrize(("strategy", "times"), [("grid", 1), ("squeeze", 3), ("nested", 3), ("tpe", 1)])
def test_a_screen_that_is_cut_is_scored_at_every_rank(strategy, times):
    found = make_strategy({"strategy": strategy}, "")
    question = SimpleNamespace(within=(4, 8, 16))
    assert found.scorings(question) == times


def test_a_step_that_failed_is_said_with_the_reason():
    *_, last = forecast(Pace(None, failed="out of memory")).lines()
    assert "how long is not known" in last
    assert "(out of memory)" in last
    assert last.startswith("takes     5 kB on disk")
