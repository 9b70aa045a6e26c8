"""About how long a study takes, from the pace that was measured."""

from rankexp.config import StudyConfig
from rankexp.metrics import ACCURACY
from rankexp.options import parse
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
    assert forecast(pace).seconds == screen + decision
    assert forecast(pace, lanes=2).seconds == (screen + decision) / 2


def test_a_step_that_failed_is_said_with_the_reason():
    *_, last = forecast(Pace(None, failed="out of memory")).lines()
    assert "how long is not known" in last
    assert "(out of memory)" in last
    assert last.startswith("takes     5 kB on disk")
