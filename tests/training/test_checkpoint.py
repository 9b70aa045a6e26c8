"""Interrupted and resumed, a trial ends with the bits that it has in one go; a checkpoint that does not fit is left."""

import json
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from thorough import later
from tiny_bench import digests, make_spec

from rankexp.record.leftovers import remove_leftovers
from rankexp.record.processes import this_machine
from rankexp.record.trials import TrialStore
from rankexp.training.trial import train_trial, train_trials
from rankexp.trial_spec import Pruning

pytestmark = pytest.mark.slow

TRIALS = {
    "lora": {"dropout": 0.3, "accumulation": 2, "warmup_steps": 4, "schedule": "cosine"},
    "head": {"method": "head", "weight_decay": 0.1},
    "full": {"method": "full"},
    "subspace": {"method": "subspace"},
    "patience": {"eval_every": 1, "patience": 3, "steps": 60},
    "summed": {
        "method": "nested",
        "rank": 4,
        "nested_ranks": (1, 2, 4),
        "nested_losses": "summed",
        "dropout": 0.2,
        "accumulation": 2,
    },
    "adalora": {
        "method": "adalora",
        "rank": 4,
        "dropout": 0.2,
        "pruning": Pruning(budget=7, first=2, last=10, every=2),
    },
}


class Cut(BaseException):
    """Stands for whatever ends a process."""


class Job:
    """A trial that somebody watches."""

    def __init__(self, spec):
        self.spec, self.steps, self.trial = spec, [], None

    def observe(self, row):
        self.steps.append(int(row["step"]))

    def publishing(self):
        return nullcontext()

    def finish(self, trial):
        self.trial = trial


def train(bench, store, *specs, cut=None, size=1, every=1000, said=None):
    """Train trials in one pack; ``cut`` ends all after so many steps, as an interruption does."""
    jobs, checks = [Job(spec) for spec in specs], []
    waiting = list(jobs)

    def take(room, beside):
        fits = [job for job in waiting if beside is None or beside.packs_with(job.spec)][:room]
        taken = fits[:1] if beside is None else fits
        for job in taken:
            waiting.remove(job)
        return taken

    def check():
        checks.append(1)
        if len(checks) == cut:
            raise Cut

    try:
        train_trials(
            bench,
            take,
            store,
            size,
            checkpoint_every=every,
            check=check,
            say=[].append if said is None else said.append,
        )
    except Cut:
        assert cut is not None
    return jobs


@pytest.mark.parametrize("cut", [later(1), 5, later(9)])
@pytest.mark.parametrize("name", TRIALS)
def test_resumed_it_ends_as_in_one_go(bench, tmp_path, name, cut):
    spec = make_spec(bench, **TRIALS[name])
    whole = train_trial(bench, spec, TrialStore(tmp_path / "whole"))
    store, said = TrialStore(tmp_path / "cut"), []
    train(bench, store, spec, cut=cut)
    assert list(store.keys()) == []
    assert [path.name for path in store.checkpoints.iterdir()] == [spec.key]
    (job,) = train(bench, store, spec, said=said)
    assert digests(job.trial) == digests(whole)
    assert said == [f"trial {spec.key} goes on from step {cut}."]
    assert job.steps == list(range(1, len(whole.result.history) + 1)), "the steps before are shown again"
    assert list(store.checkpoints.iterdir()) == []


@pytest.mark.parametrize("name", ["patience", "adalora"])
def test_interrupted_at_every_step_it_ends_as_in_one_go(bench, tmp_path, name):
    spec = make_spec(bench, **TRIALS[name])
    whole = train_trial(bench, spec, TrialStore(tmp_path / "whole"))
    store, job = TrialStore(tmp_path / "cut"), None
    for _ in whole.result.history:
        (job,) = train(bench, store, spec, cut=1)
    assert digests(job.trial) == digests(whole)


def test_early_stopping_ends_the_trial_of_these_tests(bench, tmp_path):
    history = train_trial(bench, make_spec(bench, **TRIALS["patience"]), TrialStore(tmp_path)).result.history
    losses = [row["tune_loss"] for row in history]
    assert 9 < len(history) < 60
    assert losses.index(min(losses)) == len(losses) - 4


def test_a_pack_goes_on_as_it_was_to_the_bit(bench, tmp_path):
    specs = [make_spec(bench, seed=i, rank=i + 1, dropout=0.2) for i in range(3)]
    runs = {}
    for name, cut in (("whole", None), ("cut", 4)):
        store = TrialStore(tmp_path / name)
        if cut:
            train(bench, store, *specs, size=3, cut=cut)
            assert len(list(store.checkpoints.iterdir())) == 3
        runs[name] = [digests(job.trial) for job in train(bench, store, *specs, size=3)]
    assert runs["cut"] == runs["whole"]


def test_a_trial_of_a_pack_can_go_on_alone(bench, tmp_path):
    specs = [make_spec(bench, seed=i, dropout=0.2, learning_rate=3e-3) for i in range(3)]
    whole = train(bench, TrialStore(tmp_path / "whole"), *specs, size=3)[1].trial
    store = TrialStore(tmp_path / "cut")
    train(bench, store, *specs, size=3, cut=4)
    (job,) = train(bench, store, specs[1])
    assert len(list(store.checkpoints.iterdir())) == 2, "those of the others stay"
    np.testing.assert_allclose(
        job.trial.scores("decide").values["loss"], whole.scores("decide").values["loss"], rtol=0, atol=1e-5
    )
    ours, theirs = (load_file(trial.adapter / "adapter_model.safetensors") for trial in (job.trial, whole))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_a_checkpoint_is_written_at_the_interval_and_replaces_the_one_before(bench, tmp_path):
    spec, store, seen = make_spec(bench), TrialStore(tmp_path), []

    def observe(row):
        folder = store.checkpoints / spec.key
        seen.append(sorted(path.name for path in folder.iterdir()) if folder.exists() else [])

    train_trial(bench, spec, store, observe, checkpoint_every=5)
    one, two = (["checkpoint.json", f"step-{step}.safetensors"] for step in (5, 10))
    assert seen == [[]] * 5 + [one] * 5 + [two] * 2
    assert not (store.checkpoints / spec.key).exists()


def test_without_an_interval_nothing_is_written(bench, tmp_path):
    store = TrialStore(tmp_path)
    train(bench, store, make_spec(bench), cut=4, every=0)
    assert not store.checkpoints.exists()


def test_the_cost_counts_both_parts(bench, tmp_path):
    spec, store = make_spec(bench), TrialStore(tmp_path)
    train(bench, store, spec, cut=6)
    saved = json.loads((store.checkpoints / spec.key / "checkpoint.json").read_text())["values"]
    (job,) = train(bench, store, spec)
    cost = job.trial.result.cost
    before = sum(saved["meter"]["seconds"])
    assert len(saved["meter"]["seconds"]) == 6
    assert cost["train_seconds"] > before > 0
    assert cost["wall_seconds"] > saved["seconds"] > before
    tokens = cost["tokens_per_second"] * cost["train_seconds"]
    whole = train_trial(bench, spec, TrialStore(tmp_path / "whole")).result.cost
    assert tokens == pytest.approx(whole["tokens_per_second"] * whole["train_seconds"])


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change_a_byte(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def change_a_number(path):
    path.write_text(path.read_text().replace('"since": 0', '"since": 1'))


DAMAGE = {
    "tensors cut short": ("step-6.safetensors", halve, "does not match the hash"),
    "a bit of the tensors": ("step-6.safetensors", change_a_byte, "does not match the hash"),
    "no tensors": ("step-6.safetensors", lambda path: path.unlink(), "cannot be read"),
    "values cut short": ("checkpoint.json", halve, "cannot be read"),
    "a value": ("checkpoint.json", change_a_number, "does not match its own hash"),
    "no values": ("checkpoint.json", lambda path: path.unlink(), "cannot be read"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_left_with_a_message(bench, tmp_path, damage, one_sentence):
    name, spoil, message = DAMAGE[damage]
    spec, store, said = make_spec(bench), TrialStore(tmp_path / "cut"), []
    train(bench, store, spec, cut=6)
    spoil(store.checkpoints / spec.key / name)
    (job,) = train(bench, store, spec, said=said)
    assert len(said) == 1
    assert "starts afresh" in one_sentence(said[0])
    assert message in said[0]
    assert digests(job.trial) == digests(train_trial(bench, spec, TrialStore(tmp_path / "whole")))


@pytest.mark.parametrize(("what", "found"), [("spec", "spec"), ("threads", "environment")])
def test_a_foreign_checkpoint_is_left_with_a_message(bench, tmp_path, what, found, one_sentence):
    spec, store, said = make_spec(bench), TrialStore(tmp_path), []
    torch.set_num_threads(2 if what == "threads" else 1)
    try:
        train(bench, store, spec, cut=1)
    finally:
        torch.set_num_threads(1)
    if what == "spec":
        other = replace(spec, seed=5)
        (store.checkpoints / spec.key).rename(store.checkpoints / other.key)
        spec = other
    (job,) = train(bench, store, spec, said=said)
    assert f"of another {found} than this" in one_sentence(said[0])
    assert job.steps == list(range(1, 13))
    assert job.trial.result.status == "completed"


def test_a_stopped_trial_leaves_no_checkpoint(bench, tmp_path):
    from rankexp.training.stop import StopTrialError

    store, stopped = TrialStore(tmp_path), []

    class Stopped(Job):
        def observe(self, row):
            if row["step"] == 5:
                raise StopTrialError

        def stop(self, error, history):
            stopped.append(len(history))

    waiting = [Stopped(make_spec(bench))]
    train_trials(bench, lambda *_: [waiting.pop()] if waiting else [], store, checkpoint_every=2)
    assert stopped == [5]
    assert list(store.checkpoints.iterdir()) == []


def test_a_trial_that_goes_on_elsewhere_is_not_recorded_and_keeps_its_checkpoint(bench, tmp_path):
    from rankexp.study.coordination.claims import ClaimLostError

    spec, store, stopped = make_spec(bench), TrialStore(tmp_path), []

    class Refused(Job):
        @contextmanager
        def publishing(self):
            raise ClaimLostError("lost")
            yield

        def stop(self, error, history):
            stopped.append(len(history))

    waiting = [Refused(spec)]
    train_trials(bench, lambda *_: [waiting.pop()] if waiting else [], store, checkpoint_every=2)
    assert stopped == [spec.steps]
    assert list(store.keys()) == []
    assert not list(store.root.iterdir()), "a temporary folder was left"
    assert [path.name for path in store.checkpoints.iterdir()] == [spec.key]


def test_an_observer_that_wants_to_stop_is_heard_after_a_resume(bench, tmp_path):
    """What it says to a step of the past counts at the next step: the trial has a place in the loop by then."""
    from rankexp.training.stop import StopTrialError

    spec, store, stopped = make_spec(bench), TrialStore(tmp_path), []
    train(bench, store, spec, cut=6)

    class Stopped(Job):
        def observe(self, row):
            if row["step"] >= 3:
                raise StopTrialError

        def stop(self, error, history):
            stopped.append(len(history))

    waiting = [Stopped(spec)]
    train_trials(bench, lambda *_: [waiting.pop()] if waiting else [], store)
    assert stopped == [7]


def test_cleaning_keeps_what_is_under_way_and_takes_what_has_ended(bench, tmp_path):
    store = TrialStore(tmp_path)
    ended, open_ = make_spec(bench, steps=2), make_spec(bench, seed=1)
    train(bench, store, open_, cut=3)
    train_trial(bench, ended, store)
    (store.checkpoints / ended.key).mkdir()
    (store.checkpoints / ended.key / "checkpoint.json").write_text("{}")
    stale = store.checkpoints / open_.key / f".tmp-step-4.safetensors-999999999@{this_machine()}"
    stale.write_bytes(b"half")
    remove_leftovers(tmp_path, tmp_path / "studies" / "one")
    assert [path.name for path in store.checkpoints.iterdir()] == [open_.key]
    assert sorted(path.name for path in (store.checkpoints / open_.key).iterdir()) == [
        "checkpoint.json",
        "step-3.safetensors",
    ]
