"""Splits: disjoint by text and by document, the same every time."""

import json
from collections import Counter

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from rankexp.data.rows import Row, normalised, without_duplicates
from rankexp.data.splits import as_given, assign, assign_by_class, checked, deal
from rankexp.tasks.base import SPLITS, TaskError

SHARES = {"train": 0.5, "tune": 0.1, "decide": 0.2, "test": 0.2}
TEXTS = st.text("aAb \n\tß", min_size=1, max_size=5)


@st.composite
def tables(draw, max_size=60):
    """Rows with repeated texts and with groups, numbered in order."""
    cells = draw(st.lists(st.tuples(TEXTS, st.integers(0, 12)), min_size=1, max_size=max_size))
    return [Row(f"row-{i}", f"g{group}", text, "a", place=f"f row {i}") for i, (text, group) in enumerate(cells)]


def row(i, split=None, *, text=None, group=None, label="a"):
    return Row(f"row-{i}", group or f"row-{i}", text or f"text {i}", label, split, f"f.csv row {i}")


def ids(splits):
    return {name: [row.example_id for row in rows] for name, rows in splits.items()}


@given(TEXTS)
def test_normalising_is_idempotent_and_folds_case_and_space(text):
    once = normalised(text)
    assert normalised(once) == once == normalised(f" {text.upper()}\n")
    assert "  " not in once


@given(tables())
def test_the_first_of_equal_texts_is_kept(rows):
    kept = without_duplicates(rows)
    texts = [normalised(row.text) for row in kept]
    assert len(set(texts)) == len(texts)
    assert set(texts) == {normalised(row.text) for row in rows}
    assert [row.example_id for row in kept] == sorted(
        (next(r.example_id for r in rows if normalised(r.text) == text) for text in set(texts)),
        key=lambda name: int(name.removeprefix("row-")),
    )
    assert without_duplicates(kept) == kept


@pytest.mark.slow
@given(tables(), st.integers(0, 3), st.randoms())
def test_dealt_splits_are_disjoint_whole_groups_of_the_wanted_size_and_deterministic(rows, seed, random):
    rows = without_duplicates(rows)
    try:
        splits = assign(rows, SHARES, seed)
    except TaskError:
        assume(False)
    dealt = [name for names in ids(splits).values() for name in names]
    assert len(set(dealt)) == len(dealt)
    groups = {name: {row.group_id for row in split} for name, split in splits.items()}
    assert len(set.union(*groups.values())) == sum(map(len, groups.values()))
    for name, split in splits.items():
        assert {row.example_id for row in split} == {r.example_id for r in rows if r.group_id in groups[name]}
        if name != "train":
            assert len(split) >= int(SHARES[name] * len(rows))
    assert assign(rows, SHARES, seed) == splits
    random.shuffle(shuffled := list(rows))
    assert {name: set(i) for name, i in ids(assign(shuffled, SHARES, seed)).items()} == {
        name: set(i) for name, i in ids(splits).items()
    }


def test_sizes_are_exact_where_no_group_is_in_the_way():
    rows = [row(i) for i in range(100)]
    assert {name: len(split) for name, split in assign(rows, SHARES, 0).items()} == {
        "train": 50, "tune": 10, "decide": 20, "test": 20,
    }  # fmt: skip
    counts = {"train": 30, "tune": 5, "decide": 7, "test": 9}
    assert {name: len(split) for name, split in assign(rows, counts, 0).items()} == counts
    assert ids(assign(rows, counts, 0)) != ids(assign(rows, counts, 1))


def test_train_takes_what_is_left_of_a_share_and_never_less_than_a_count():
    rows = [row(i) for i in range(10)]
    assert len(assign(rows, {**SHARES, "train": 0.9}, 0)["train"]) == 5
    with pytest.raises(TaskError, match=r"^the data has 10 different texts, too few for splits of train 9, tune 1"):
        assign(rows, {"train": 9, "tune": 1, "decide": 1, "test": 1}, 0)


def test_a_seed_holds_some_rows_of_a_growing_file_apart():
    """A larger train leaves test as it was, because test is dealt first."""
    rows = [row(i) for i in range(50)]
    small, large = (assign(rows, {"train": n, "tune": 4, "decide": 4, "test": 8}, 3) for n in (10, 30))
    assert {name: small[name] for name in SPLITS[1:]} == {name: large[name] for name in SPLITS[1:]}


@given(st.lists(st.tuples(TEXTS, st.integers(0, 5), st.sampled_from(SPLITS)), max_size=12))
def test_given_splits_are_kept_as_they_are_or_refused_because_they_overlap(cells):
    rows = [Row(f"row-{i}", f"g{g}", text, "a", split, f"f row {i}") for i, (text, g, split) in enumerate(cells)]
    owners = [{(normalised(r.text), r.split) for r in rows}, {(r.group_id, r.split) for r in rows}]
    overlap = any(len({value for value, _ in owner}) < len(owner) for owner in owners)
    if overlap:
        with pytest.raises(TaskError, match="splits must not overlap"):
            as_given(rows)
    else:
        assert as_given(rows) == {name: [r for r in rows if r.split == name] for name in SPLITS}


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (
            row(2, "test", text="Text  1"),
            "f.csv row 2 in split 'test' has the same text as f.csv row 1 in split 'train'",
        ),
        (row(2, "tune", group="row-1"), "f.csv row 2 in split 'tune' has the same group as f.csv row 1"),
        (row(2, "valid"), "f.csv row 2 has split 'valid'; train, tune, decide, test are accepted."),
        (row(2, ""), "f.csv row 2 has split ''"),
        (row(2, None), "f.csv row 2 has split None"),
    ],
)
def test_an_overlap_names_both_rows(second, message, one_sentence):
    with pytest.raises(TaskError) as refused:
        as_given([row(1, "train"), second])
    assert message in one_sentence(refused.value)


def four(**changes):
    splits = {name: [row(10 * i, name), row(10 * i + 1, name, label="b")] for i, name in enumerate(SPLITS)}
    return {**splits, **changes}


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        *((four(**{name: []}), f"split '{name}' is empty") for name in SPLITS),
        (
            four(decide=[row(5, "decide", label="c")]),
            "f.csv row 5 in split 'decide' has label 'c', which train lacks.",
        ),
        (four(train=[row(5)], tune=[row(6)], decide=[row(7)], test=[row(8)]), "every example of train has label 'a'"),
    ],
)
def test_splits_that_cannot_be_trained_on_are_refused(splits, message, one_sentence):
    with pytest.raises(TaskError) as refused:
        checked(splits)
    assert message in one_sentence(refused.value)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["b", "a", "C"], ("C", "a", "b")),
        (["10", "9", "-1"], ("-1", "9", "10")),
        (["²", "a", "--1", "①"], ("--1", "a", "²", "①")),
    ],
)
def test_labels_are_sorted_numbers_by_value(labels, expected):
    assert checked({name: [row(i, label=label) for i, label in enumerate(labels)] for name in SPLITS}) == expected


def labelled(labels, groups=None):
    return [row(i, label=label, group=groups[i] if groups else None) for i, label in enumerate(labels)]


def kept_apart(splits):
    dealt = [row.group_id for rows in splits.values() for row in {r.group_id: r for r in rows}.values()]
    return len(dealt) == len(set(dealt))


@pytest.mark.slow
@given(
    st.lists(st.sampled_from("aaaaaabbbcd"), min_size=40, max_size=90), st.integers(0, 3), st.booleans(), st.booleans()
)
def test_a_class_that_chance_leaves_out_of_train_is_dealt_by_class(labels, seed, grouped, few):
    """And what works by chance stays as it was."""
    assume(len(set(labels)) > 1)
    rows = labelled(labels, [f"g{i // 2}" for i in range(len(labels))] if grouped else None)
    sizes = {"train": 12, "tune": 3, "decide": 5, "test": 6} if few else SHARES
    random, dealt = assign(rows, sizes, seed), deal(rows, sizes, seed)
    try:
        checked(random)
    except TaskError:
        assert dealt.by_class in set(labels) - {row.label for row in random["train"]}
        assert {row.label for row in dealt.splits["train"]} == set(labels)
    else:
        assert dealt.by_class is None
        assert dealt.splits == random
    assert kept_apart(dealt.splits)
    assert deal(rows, sizes, seed) == dealt
    for name in SPLITS[1:]:
        assert int(sizes[name] * (1 if few else len(rows))) <= len(dealt.splits[name])


def test_dealing_by_class_gives_each_split_its_share_of_each_class():
    rows = labelled(["a"] * 100 + ["b"] * 20 + ["c"] * 10 + ["d"])
    splits = assign_by_class(rows, SHARES, 0)
    counts = {name: Counter(row.label for row in split) for name, split in splits.items()}
    assert [counts[name]["a"] for name in SPLITS] == pytest.approx([50, 10, 20, 20], abs=2)
    assert [counts[name]["b"] for name in SPLITS] == pytest.approx([10, 2, 4, 4], abs=1)
    assert [counts[name]["c"] for name in SPLITS] == pytest.approx([5, 1, 2, 2], abs=1)
    assert counts["train"]["d"] == 1
    assert [len(splits[name]) for name in SPLITS[1:]] == [13, 26, 26]
    few = assign_by_class(rows, {"train": 20, "tune": 5, "decide": 10, "test": 10}, 0)
    assert {name: len(split) for name, split in few.items()} == {"train": 20, "tune": 5, "decide": 10, "test": 10}
    assert sum(row.label == "a" for row in few["test"]) == pytest.approx(7.6, abs=1.5)


@pytest.mark.parametrize("seed", range(5))
def test_a_class_of_one_row_is_trained_on_whatever_the_seed(seed):
    dealt = deal(labelled(["a", "b"] * 30 + ["rare"]), SHARES, seed)
    assert dealt.labels in {("a", "b", "rare"), ("a", "b")}
    assert "rare" in dealt.labels or dealt.summary.lost_labels == ("rare",)


def test_classes_that_leave_nothing_for_other_splits_are_named(one_sentence):
    rows = labelled([f"c{i // 10}" for i in range(40)], [f"g{i // 10}" for i in range(40)])
    with pytest.raises(TaskError, match=r"since class 'c0' is in 1 group only, first f\.csv row 0\.$") as refused:
        deal(rows, {"train": 9, "tune": 1, "decide": 1, "test": 1}, 0)
    one_sentence(refused.value)


def test_groups_are_counted_where_they_are_too_few(one_sentence):
    rows = labelled(["a", "b"] * 20, ["one"] * 40)
    with pytest.raises(TaskError, match=r"40 different texts in 1 group, which are never cut, too few for") as refused:
        deal(rows, SHARES, 0)
    one_sentence(refused.value)


@pytest.mark.parametrize("groups", [["x"], ["x", "x", "x"]])
def test_a_decide_split_of_one_group_is_refused(groups, one_sentence):
    splits = four(decide=[row(50 + i, "decide", group=group) for i, group in enumerate(groups)])
    with pytest.raises(
        TaskError, match=r"split 'decide' has one group only, that of f\.csv row 50; at least 2"
    ) as refused:
        checked(splits)
    one_sentence(refused.value)


CELLS = st.tuples(st.integers(0, 40), st.integers(0, 5), st.sampled_from("aab"), st.sampled_from(["t ", " T  "]))


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.filter_too_much])
@given(st.lists(CELLS, min_size=30, max_size=80), st.integers(0, 3), st.sampled_from([None, 0.1, 2]), st.booleans())
def test_rows_that_are_read_are_used_or_left_out_by_a_rule(cells, seed, size, given_splits):
    rows = [
        Row(
            f"row-{i}",
            f"g{group} {text % 4}",
            f"{t}{text}",
            label,
            SPLITS[text % 4] if given_splits else None,
            f"f row {i}",
        )
        for i, (text, group, label, t) in enumerate(cells)
    ]
    sizes = SHARES if size is None else dict.fromkeys(SPLITS, size)
    try:
        dealt = deal(rows, sizes, seed)
    except TaskError:
        assume(False)
    summary, kept = dealt.summary, without_duplicates(rows)
    left_out = {rule: found.rows for rule, found in summary.left_out.items()}
    assert summary.read == len(rows) == summary.used + sum(left_out.values())
    assert summary.used == sum(map(len, dealt.splits.values()))
    assert left_out.get("repeated", 0) + left_out.get("contradicting", 0) == len(rows) - len(kept)
    assert left_out.get("beyond_sizes", 0) == len(kept) - summary.used
    labels = {normalised(row.text): row.label for row in reversed(rows)}
    contradicting = [row for row in rows if row.label != labels[normalised(row.text)]]
    assert left_out.get("contradicting", 0) == len(contradicting)
    if contradicting:
        assert summary.left_out["contradicting"].first == contradicting[0].place
    assert set(summary.lost_labels) == {row.label for row in rows} - {r.label for s in dealt.splits.values() for r in s}
    assert json.loads(json.dumps(summary.card()))["left_out"].keys() == left_out.keys()
    assert all(found.first in summary.sentence() for found in summary.left_out.values())
