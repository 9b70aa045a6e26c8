"""Splits: disjoint by text and by document, the same every time."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rankexp.data.rows import Row, normalised, without_duplicates
from rankexp.data.splits import as_given, assign, checked
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
