"""The record of a study, and the ledger that opens a test split once."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from rankexp.candidates import CandidateName
from rankexp.ranks import RankMap
from rankexp.record.files import DamagedRecordError
from rankexp.record.ledger import TestLedger
from rankexp.record.scores import Scores
from rankexp.record.studies import Planned, Pruned, StudyRecord, StudyStore
from rankexp.trial_spec import TrialSpec

RECORD = StudyRecord(
    name="s-01234567",
    config={"search": {"ranks": [4, 8]}},
    model={"name": "m", "fingerprint": "f", "shapes": {"q": [4, 4]}},
    data={"name": "d", "fingerprint": "f", "test_fingerprint": "0" * 20, "labels": ["a", "ü"], "splits": {}},
    settings={"precision": "float32"},
    notes={"widened": 0},
    created="2026-11-01T00:00:00+00:00",
)
TRIALS = [Planned(f"{i:020}", "screen", f"r={rank}", rank, "tuning") for i, rank in enumerate((4, 8, 0, None))]
K1, K2 = (f"{n:020}" for n in (1, 2))
A, B, C = (letter * 20 for letter in "abc")
DATA, OTHER = "d" * 20, "0" * 20
SCORES = Scores(
    np.array(["a", "b"]),
    np.array(["a", "b"]),
    {"accuracy": np.array([1, 0], np.float32), "loss": np.array([0.1, 2.0], np.float32)},
)


@pytest.fixture
def study(tmp_path):
    store = StudyStore(tmp_path / "studies" / RECORD.name)
    assert not store.exists()
    store.write(RECORD)
    return store


def test_what_was_written_is_read(study, tmp_path):
    assert study.exists()
    assert study.read() == RECORD
    assert study.workspace == tmp_path
    study.write(dataclasses.replace(RECORD, planned=tuple(TRIALS)))
    assert study.read().planned == tuple(TRIALS)


def test_a_trial_is_planned_once_and_in_order(study):
    study.plan(TRIALS[1], TRIALS[0], TRIALS[1])
    before = (study.folder / "study.json").read_bytes()
    assert study.plan(TRIALS[0]).planned == (TRIALS[1], TRIALS[0])
    assert study.plan().planned == (TRIALS[1], TRIALS[0])
    assert (study.folder / "study.json").read_bytes() == before
    again = dataclasses.replace(TRIALS[0], phase="decide", role="evidence", generation=1)
    assert study.plan(*TRIALS, again).planned == (TRIALS[1], TRIALS[0], *TRIALS[2:], again)
    assert study.read().planned[-1] == again


def test_candidates_are_read_as_names_and_written_as_text(study):
    study.plan(*TRIALS)
    assert [item.candidate.rank for item in study.read().planned] == [4, 8, 0, None]
    assert '"candidate": "r=4"' in (study.folder / "study.json").read_text()


@pytest.mark.parametrize(("rows", "said"), [
    (None, ()), ([], ()), ("x", ()), ({}, ()), ({"said": 3}, ()), ({"said": ["a", 4]}, ("a", "4")),
])  # fmt: skip
def test_what_is_said_of_rows_is_read_whatever_stands_there(rows, said):
    record = dataclasses.replace(RECORD, data={**RECORD.data, "rows": rows})
    assert record.said_of_rows == said
    assert record.said_before == ()
    planned = dataclasses.replace(record, settings={"plan": ["trials 3"]})
    assert planned.said_before == (*said, "trials 3")


def test_a_split_is_opened_for_new_seeds_beside_the_first_opening_and_once(tmp_path):
    ledger = TestLedger(tmp_path)
    assert ledger.open(DATA, "one", [A, B])
    assert ledger.open(DATA, "one", [C], anew=True)
    assert ledger.open(DATA, "two", [C], anew=True)
    assert not ledger.open(DATA, "one", [A], anew=True)
    assert ledger.entry(DATA) == {**ledger.entry(DATA), "study": "one", "keys": [A, B]}
    assert ledger.entry(DATA, anew=True)["keys"] == [C]
    assert ledger.entry(OTHER, anew=True) == {}


def test_notes_add_up_and_leave_the_plan_alone(study):
    study.plan(*TRIALS)
    study.note(widened=1)
    study.note(screened=[3e-3])
    assert study.read() == dataclasses.replace(RECORD, planned=tuple(TRIALS), notes={"widened": 1, "screened": [3e-3]})


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema": 1}', '{"schema": 1, "planned": [3]}'])
def test_a_damaged_study_is_named(study, text):
    (study.folder / "study.json").write_text(text)
    with pytest.raises(DamagedRecordError, match=r"study\.json"):
        study.read()


def test_a_missing_field_of_a_study_is_damage(study):
    path = study.folder / "study.json"
    values = json.loads(path.read_text())
    del values["config"]
    path.write_text(json.dumps(values))
    with pytest.raises(DamagedRecordError, match=r"study\.json"):
        study.read()


def test_pruned_trials_are_read_back_sorted(study):
    common = {"model": "m", "data": "d", "task": "t", "method": "head", "learning_rate": 0.1, "steps": 2}
    specs = [TrialSpec(**common, seed=seed) for seed in range(3)]
    rows = [Pruned(Planned.guessed(spec), spec.to_dict(), ({"step": 1.0, "loss": 0.5},)) for spec in specs]
    for row in rows:
        study.write_pruned(row)
    assert study.pruned() == sorted(rows, key=lambda row: row.key)
    first = study.folder / "pruned" / f"{rows[0].key}.json"
    first.write_text(first.read_text().replace('"seed": 0', '"seed": 7'))
    with pytest.raises(DamagedRecordError, match=rows[0].key):
        study.pruned()


LORA = TrialSpec(
    model="m", data="d", task="t", method="lora", rank_map=RankMap({"q": 8, "v": 8}), learning_rate=0.1, steps=2
)


def test_what_a_pruned_trial_was_planned_as_is_read_and_not_guessed(study):
    row = Pruned(Planned(LORA.key, "contest", CandidateName("large"), 8, "tuning"), LORA.to_dict(), ())
    study.write_pruned(row)
    assert study.pruned() == [row]
    (study.folder / "pruned" / f"{LORA.key}.json").write_text(
        json.dumps({"schema": 1, "key": LORA.key, "spec": row.spec, "history": [], "planned": {"key": K1}})
    )
    with pytest.raises(DamagedRecordError, match=LORA.key):
        study.pruned()


@pytest.mark.parametrize(("changes", "candidate", "rank"), [
    ({}, "r=8", 8), ({"rank_map": RankMap({"q": 8, "v": 4})}, "map", None), ({"method": "dora"}, "dora", 8),
    ({"method": "head", "rank_map": RankMap()}, "head", 0),
])  # fmt: skip
def test_a_file_of_before_that_was_kept_stands_for_a_run_of_the_screen(study, changes, candidate, rank):
    spec = dataclasses.replace(LORA, **changes)
    path = study.folder / "pruned" / f"{spec.key}.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"schema": 1, "key": spec.key, "spec": spec.to_dict(), "history": []}))
    (read,) = study.pruned()
    assert read.planned == Planned(spec.key, "screen", candidate, rank, "tuning")


def test_scores_on_test_are_hashed(study):
    assert study.test_scores() == {}
    for key in (K1, K2):
        study.write_test_scores(key, SCORES)
    read = study.test_scores()
    assert list(read) == [K1, K2]
    np.testing.assert_array_equal(read[K1].values["loss"], SCORES.values["loss"], strict=True)
    better = dataclasses.replace(SCORES, values={**SCORES.values, "accuracy": np.array([1, 1], np.float32)})
    (study.folder / "test" / f"{K2}.npz").write_bytes(better.to_bytes())
    with pytest.raises(DamagedRecordError, match=rf"{K2}\.npz does not match the hash"):
        study.test_scores()
    (study.folder / "test" / f"{K2}.sha256").unlink()
    with pytest.raises(DamagedRecordError, match=rf"{K2}\.sha256"):
        study.test_scores()


def test_a_split_is_opened_once_for_one_pair_of_trials(tmp_path):
    ledger = TestLedger(tmp_path)
    assert ledger.entry(DATA) == {}
    assert ledger.open(DATA, "first", [B, A])
    assert ledger.open(DATA, "first", [A, B])
    assert TestLedger(tmp_path).open(DATA, "second", [B, A])
    assert not ledger.open(DATA, "first", [A, C])
    assert not ledger.open(DATA, "first", [A])
    assert ledger.entry(DATA) == {"study": "first", "keys": [A, B]}
    assert ledger.open(OTHER, "second", [A, C])
    assert sorted(path.name for path in ledger.root.iterdir()) == [f"{OTHER}.json", f"{DATA}.json"]


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_a_damaged_ledger_opens_nothing(tmp_path, text):
    ledger = TestLedger(tmp_path)
    ledger.open(DATA, "first", [A])
    (ledger.root / f"{DATA}.json").write_text(text)
    with pytest.raises(DamagedRecordError, match=rf"{DATA}\.json"):
        ledger.open(DATA, "first", [A])


RACE = """
import os, sys, time
from rankexp.record.ledger import TestLedger
workspace, go, name = sys.argv[1:]
while not os.path.exists(go):
    time.sleep(0.001)
print("".join(str(int(TestLedger(workspace).open(f"{i:020}", name, [name * 20]))) for i in range(40)))
"""


@pytest.mark.slow
def test_of_two_that_open_a_split_at_once_exactly_one_wins(tmp_path):
    go = tmp_path / "go"
    racers = [
        subprocess.Popen([sys.executable, "-c", RACE, tmp_path, go, name], stdout=subprocess.PIPE, text=True)
        for name in ("a", "b")
    ]
    go.touch()
    first, second = (racer.communicate()[0].strip() for racer in racers)
    assert len(first) == 40
    assert [int(a) + int(b) for a, b in zip(first, second, strict=True)] == [1] * 40
    winners = ["a" if TestLedger(tmp_path).entry(f"{i:020}")["study"] == "a" else "b" for i in range(40)]
    assert winners == ["a" if won == "1" else "b" for won in first]
    assert not [name for name in os.listdir(tmp_path / "test_ledger") if name.startswith(".")]
