"""The queue of a process and its attempts, with real claims and a record, and nothing trained."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from rankexp.candidates import CandidateName
from rankexp.progress import Display
from rankexp.ranks import RankMap
from rankexp.record.studies import Planned, StudyStore
from rankexp.record.trial import TrialResult
from rankexp.record.trials import TrialStore
from rankexp.study.coordination.claims import ClaimLostError, Claims
from rankexp.study.coordination.database import Storage
from rankexp.study.coordination.offers import Offers
from rankexp.study.coordination.team import Team
from rankexp.study.execution.attempt import Attempt, Wanted
from rankexp.study.execution.audience import Audience
from rankexp.study.execution.queue import OfferedQueue, Queue
from rankexp.study.execution.race import PrunedError
from rankexp.tracking import NullTracker
from rankexp.trial_spec import TrialSpec

SPEC = TrialSpec(
    model="m", data="d", task="csv", method="lora", rank_map=RankMap({"q": 4}), learning_rate=1e-3, steps=9
)
DONE = TrialResult("completed", metrics={"tune": {"accuracy": 0.5, "loss": 0.7, "examples": 2}}, finished="2026-01-01")
FAILED = TrialResult("failed", "no memory", finished="2026-01-02")


def spec_of(seed: int, **changes: object) -> TrialSpec:
    return replace(SPEC, seed=seed, **changes)


class Process:
    """A process that works for a study: its claims, its record, its queue."""

    def __init__(self, workspace: Path) -> None:
        self.claims = Claims(Storage.of(workspace), lease=60)
        self.trials = TrialStore(workspace)
        self.team = Team(self.claims, Offers(self.claims, "s"))
        self.said = io.StringIO()
        self.audience = Audience(Display(self.said), NullTracker(), _Unread(workspace / "studies" / "s"), "accuracy")
        self.trained: list[str] = []

    def queue(self, *groups: list[Wanted]) -> Queue:
        return Queue(groups, self.trials, self.team, self.audience, self.trained.append)

    def record(self, attempt: Attempt, result: TrialResult = DONE) -> None:
        attempt.finish(self.trials.write(attempt.spec, result, {}, publishing=attempt.publishing()))


class _Unread(StudyStore):
    def read(self):  # type: ignore[no-untyped-def]  # the mirror that would ask for it is none
        return None


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path)
    with closing(process.claims):
        yield process


@pytest.fixture
def there(tmp_path: Path, here: Process) -> Iterator[Process]:
    """Another process that works for the same study."""
    process = Process(tmp_path)
    with closing(process.claims):
        yield process


def wanted(seed: int, **changes: object) -> Wanted:
    return Wanted(spec_of(seed, **changes), f"trial {seed}")


def keys(attempts: list[Attempt]) -> list[str]:
    return [attempt.spec.key for attempt in attempts]


def test_groups_are_taken_in_order_and_the_queue_closes_with_the_last(here: Process) -> None:
    queue, under_way = here.queue([wanted(0)], [wanted(1)]), list[Attempt]()
    assert keys(queue.take(4, None, under_way)) == [spec_of(0).key]
    assert queue.open
    assert keys(queue.take(4, None, under_way)) == [spec_of(1).key]
    assert not queue.open
    assert len(under_way) == 2
    for attempt in under_way:
        here.record(attempt)
    assert here.trained == [spec_of(0).key, spec_of(1).key]
    assert "[1/1] trial 0  tune accuracy 0.500, loss 0.700" in here.said.getvalue()


def test_a_group_waits_for_room_and_a_smaller_one_goes_before_it(here: Process) -> None:
    queue = here.queue([wanted(0), wanted(1)], [wanted(2)])
    assert keys(queue.take(1, spec_of(9), [])) == [spec_of(2).key]
    assert queue.take(1, spec_of(9), []) == []
    assert keys(queue.take(2, spec_of(9), [])) == [spec_of(0).key, spec_of(1).key]


def test_only_what_may_share_a_pack_starts_beside_another(here: Process) -> None:
    queue = here.queue([wanted(0, batch_size=8)], [wanted(1)])
    assert keys(queue.take(2, spec_of(9), [])) == [spec_of(1).key]
    assert queue.take(2, spec_of(9), []) == []
    assert keys(queue.take(2, None, [])) == [spec_of(0, batch_size=8).key]


def test_what_another_process_trains_is_left_to_it_and_not_asked_for_again_at_once(
    here: Process, there: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    (other,) = there.queue([wanted(0)]).take(1, None, [])
    queue, under_way = here.queue([wanted(0)]), list[Attempt]()
    assert queue.take(1, None, under_way) == []
    monkeypatch.setattr(here.team.claims, "take", lambda _: pytest.fail("asked again"))
    assert queue.take(1, spec_of(9), under_way) == [], "within half a second"
    monkeypatch.undo()
    there.record(other)
    assert queue.take(1, None, under_way) == []
    assert not queue.open, "it is in the record"
    assert here.trained == []


def test_a_group_is_claimed_whole_or_not_at_all(here: Process, there: Process) -> None:
    there.queue([wanted(1)]).take(1, None, [])
    queue = here.queue([wanted(0), wanted(1)])
    assert queue.take(2, None, []) == []
    assert there.team.claim(spec_of(0).key) is not None, "given back"


def test_a_trial_that_was_recorded_after_it_was_asked_for_is_not_trained(here: Process, there: Process) -> None:
    told: list[str] = []
    one = Wanted(spec_of(0), "", finished=lambda trial: told.append(trial.key))
    queue = here.queue([one, wanted(1)])
    there.record(there.queue([wanted(0)]).take(1, None, [])[0])
    assert keys(queue.take(2, None, [])) == [spec_of(1).key]
    assert told == [spec_of(0).key]
    assert here.team.claim(spec_of(0).key) is not None, "its claim was given back"


def test_a_trial_that_fails_is_tried_once_more_alone_and_then_recorded_as_failed(here: Process) -> None:
    queue, under_way = here.queue([wanted(0)], [wanted(1)]), list[Attempt]()
    queue.take(1, None, under_way)
    queue.take(1, spec_of(0), under_way)
    queue.fail(RuntimeError("odd"), under_way, FAILED)
    assert "trial 0 failed (RuntimeError: odd) and is tried once more." in here.said.getvalue()
    assert not any(attempt.open for attempt in under_way)
    assert queue.take(2, spec_of(9), under_way) == [], "not beside another"
    (again,) = queue.take(2, None, under_way)
    assert queue.take(2, again.spec, under_way) == [], "nor another beside it"
    queue.fail(RuntimeError("odd"), under_way, FAILED)
    assert here.trials.read(spec_of(0).key).result == FAILED
    (second,) = queue.take(2, None, under_way)
    here.record(second)
    assert not queue.open
    assert here.trials.read(spec_of(1).key).result.status == "completed"


def test_failures_in_another_process_count(here: Process, there: Process) -> None:
    elsewhere, under_way = there.queue([wanted(0)]), list[Attempt]()
    elsewhere.take(1, None, under_way)
    elsewhere.fail(RuntimeError("odd"), under_way, FAILED)
    queue, mine = here.queue([wanted(0)]), list[Attempt]()
    assert queue.take(2, spec_of(9), mine) == [], "it failed there, so it is tried alone"
    queue.take(2, None, mine)
    queue.fail(RuntimeError("odd"), mine, FAILED)
    assert here.trials.read(spec_of(0).key).result == FAILED


def test_a_failed_trial_of_an_earlier_command_is_trained_again(here: Process) -> None:
    here.trials.write(spec_of(0), FAILED, {})
    again = Wanted(spec_of(0), "", failed_before=FAILED.finished)
    assert len(here.queue([again]).take(1, None, [])) == 1


def test_a_trial_that_was_taken_over_ends_here_and_is_wanted_again(here: Process) -> None:
    queue, under_way = here.queue([wanted(0)]), list[Attempt]()
    (attempt,) = queue.take(1, None, under_way)
    attempt.stop(ClaimLostError(attempt.spec.key), [])
    assert queue.open
    assert not attempt.open
    assert "was lost to another process" in here.said.getvalue()


def test_a_step_of_a_lost_trial_raises(here: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    one = Wanted(spec_of(0), "", observe=lambda row: seen.append(row["loss"]))
    (attempt,) = here.queue([one]).take(1, None, [])
    attempt.observe({"step": 1, "loss": 0.5})
    monkeypatch.setattr(here.claims, "lost", lambda *_: True)
    with pytest.raises(ClaimLostError):
        attempt.observe({"step": 2, "loss": 0.4})
    assert seen == [0.5]


def test_a_trial_that_a_search_stops_keeps_the_rows_up_to_there(here: Process) -> None:
    kept: list[object] = []
    one = Wanted(spec_of(0), "one", pruned=kept.extend)
    (attempt,) = here.queue([one]).take(1, None, [])
    attempt.stop(error := PrunedError(2), [{"step": n, "loss": 0.5} for n in (1, 2, 3)])
    assert kept == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.5}]
    assert one.stopped is error
    assert "one  pruned at step 2" in here.said.getvalue()
    assert here.team.claim(spec_of(0).key) is not None


def test_the_mirror_is_told_what_a_trial_is_trained_as(here: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    told, real = list[object](), NullTracker.start
    monkeypatch.setattr(NullTracker, "start", lambda self, *args: told.append(args[2]) or real(self, *args))
    item = Planned(spec_of(0).key, "screen", CandidateName("wide"), None, "tuning")
    here.queue([Wanted(spec_of(0), "", planned=item)]).take(1, None, [])
    assert told == [item]


def test_a_result_is_refused_once_the_trial_was_taken_over(here: Process, there: Process) -> None:
    (attempt,) = here.queue([wanted(0)]).take(1, None, [])
    attempt.abort()
    (other,) = there.queue([wanted(0)]).take(1, None, [])
    with pytest.raises(ClaimLostError):
        here.record(attempt)
    there.record(other)
    assert there.trials.read(spec_of(0).key).result == DONE


def test_what_is_offered_is_taken_for_as_long_as_somebody_leads(here: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    led = [True]
    here.team.offers.put([(spec_of(0), "a"), (spec_of(1), "b")])

    def offered() -> list[Wanted]:
        return [Wanted(spec, label) for spec, label in here.team.offered()]

    rest = (here.trials, here.team, here.audience, here.trained.append)
    queue, under_way = OfferedQueue(offered, lambda: led[0], offered(), *rest), list[Attempt]()
    for _ in range(2):
        queue.take(1, None, under_way)
    assert sorted(keys(under_way)) == sorted([spec_of(0).key, spec_of(1).key])
    for attempt in under_way:
        here.record(attempt)
    assert here.team.offers.count() == 0, "taken back as they were recorded"
    assert queue.open
    led[0] = False
    monkeypatch.setattr(time, "monotonic", lambda now=time.monotonic: now() + 1)
    assert not queue.open


def test_whoever_has_lost_the_lead_takes_nothing(here: Process) -> None:
    def lost() -> None:
        raise InterruptedError

    team = replace(here.team, check_lead=lost)
    queue = Queue([[wanted(0)]], here.trials, team, here.audience, here.trained.append)
    with pytest.raises(InterruptedError):
        queue.take(1, None, [])
    assert queue.open
