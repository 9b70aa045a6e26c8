"""RankMap, TrialSpec and the content key."""

import dataclasses
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rankexp.canonical_json import canonical_json, content_key
from rankexp.lora.inject import inject, trainable_parameters
from rankexp.ranks import RankMap
from rankexp.trial_spec import Pruning, TrialSpec

NAMES = st.text("abcx.0_", min_size=1, max_size=4)
RANKS = st.dictionaries(NAMES, st.integers(0, 64), max_size=6)
SPEC = TrialSpec(
    model="m" * 20, data="d" * 20, task="csv", method="lora", rank_map={"q": 4}, learning_rate=1e-3, steps=9
)
SPECS = st.builds(
    TrialSpec,
    model=st.text(max_size=5),
    data=st.text(max_size=5),
    task=st.just("csv"),
    method=st.just("lora"),
    rank_map=st.dictionaries(NAMES, st.integers(1, 64), min_size=1, max_size=4),
    alpha=st.floats(1e-9, 1e9) | st.integers(1, 99),
    learning_rate=st.floats(1e-12, 10),
    steps=st.integers(1, 10**6),
    seed=st.integers(0, 2**31),
    evaluate=st.lists(st.sampled_from(["tune", "decide"]), unique=True),
)


@pytest.mark.slow
@given(RANKS, st.randoms())
def test_a_rank_map_ignores_order_and_zeros(ranks, random):
    shuffled = list(ranks.items())
    random.shuffle(shuffled)
    plain = {name: rank for name, rank in ranks.items() if rank}
    maps = [RankMap(ranks), RankMap(shuffled), RankMap(plain), RankMap(RankMap(ranks))]
    assert all(other == maps[0] == plain for other in maps)
    assert len({hash(item) for item in maps}) == 1
    assert [list(item) for item in maps] == [sorted(plain)] * 4
    assert (len(maps[0]), set(maps[0].values()) <= {0}) == (len(plain), not plain)


@given(RANKS)
def test_a_rank_map_names_its_one_rank(ranks):
    different = {rank for rank in ranks.values() if rank}
    assert RankMap(ranks).uniform_rank == (different.pop() if len(different) == 1 else None)


def test_a_rank_map_is_immutable_and_keeps_no_hold_of_its_source():
    source = {"q": 4}
    ranks = RankMap(source)
    source["q"] = 8
    assert ranks == {"q": 4}
    with pytest.raises(TypeError, match="assignment"):
        ranks["q"] = 8
    with pytest.raises(TypeError, match="deletion"):
        del ranks["q"]


@pytest.mark.parametrize("rank", [-4, 3.5, 4.0, True, "4", None])
def test_what_is_no_rank_is_refused(rank):
    with pytest.raises(ValueError, match=r"the rank of 'q' is .*; a whole number of 0 or more is needed\.$"):
        RankMap({"q": rank})


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=4))
def test_the_cost_is_the_count_of_the_injected_parameters(layers):
    model = nn.ModuleDict({f"m{i}": nn.Linear(a, b) for i, (a, b, _) in enumerate(layers)})
    ranks = RankMap({f"m{i}": min(a, b, r) for i, (a, b, r) in enumerate(layers)})
    shapes = {f"m{i}": (a, b) for i, (a, b, _) in enumerate(layers)}
    inject(model, ranks, alpha=8.0, seed=0)
    assert ranks.cost(shapes) == sum(p.numel() for p in trainable_parameters(model).values())


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        ({"q": 9}, r"rank 9 exceeds 8, .* layer 'q' of shape 16 x 8"),
        ({"k": 1}, "names 'k', but the model has no such"),
    ],
)
@pytest.mark.parametrize("method", ["check", "cost"])
def test_a_map_that_does_not_fit_the_model_is_refused(ranks, message, method):
    with pytest.raises(ValueError, match=message):
        getattr(RankMap(ranks), method)({"q": (8, 16)})


@given(SPECS)
def test_a_spec_survives_json(spec):
    again = TrialSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    assert again.key == spec.key


CHANGES = {
    "model": "other", "data": "other", "task": "other", "rank_map": {"q": 8}, "alpha": 8.0, "scaling": "rslora",
    "dropout": 0.1, "learning_rate": 2e-3, "schedule": "cosine", "warmup_steps": 1, "weight_decay": 0.1,
    "max_grad_norm": 0.0, "steps": 10, "batch_size": 16, "accumulation": 2, "seed": 1, "precision": "bfloat16",
    "initialisation": "pissa", "loraplus_lr_ratio": 4.0, "eval_every": 3, "patience": 2, "evaluate": ("tune", "decide"), "base_dropout": 0.1, "engine": 1,
}  # fmt: skip
PRUNINGS = [
    Pruning(budget=3, first=1, last=6), Pruning(budget=2, first=1, last=6), Pruning(budget=3, first=0, last=6),
    Pruning(budget=3, first=1, last=7), Pruning(budget=3, first=1, last=6, every=2),
    Pruning(budget=3, first=1, last=6, beta1=0.9), Pruning(budget=3, first=1, last=6, beta2=0.9),
    Pruning(budget=3, first=1, last=6, orthogonality=0.5),
]  # fmt: skip


@pytest.mark.parametrize("change", [{"budget": 0}, {"first": 6}, {"every": 0}, {"beta1": 1.0}, {"orthogonality": -1}])
def test_a_pruning_that_cannot_be_is_refused(change):
    with pytest.raises(ValueError, match="needs"):
        dataclasses.replace(PRUNINGS[0], **change)


def test_every_field_is_part_of_the_key():
    changed = [dataclasses.replace(SPEC, **{name: value}) for name, value in CHANGES.items()]
    changed += [dataclasses.replace(SPEC, method=method, rank_map={}) for method in ("head", "full")]
    changed += [dataclasses.replace(SPEC, method="subspace", rank_map={}, dimension=n) for n in (10, 100)]
    changed += [dataclasses.replace(SPEC, method="nested", nested_ranks=ranks) for ranks in ((2, 4), (1, 4))]
    changed += [dataclasses.replace(SPEC, method="nested", nested_ranks=(2, 4), nested_losses="summed")]
    changed += [dataclasses.replace(SPEC, method="adalora", pruning=pruning) for pruning in PRUNINGS]
    changed += [dataclasses.replace(SPEC, method="dora")]
    assert len({spec.key for spec in [SPEC, *changed]}) == len(changed) + 1
    assert all(TrialSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec for spec in changed)
    assert {*CHANGES, "method", "dimension", "nested_ranks", "nested_losses", "pruning"} == {
        field.name for field in dataclasses.fields(TrialSpec)
    }


def test_the_order_of_a_rank_map_and_the_type_of_a_number_are_no_part_of_the_key():
    one, other = {"q": 4, "v": 2, "k": 0}, {"v": 2, "q": 4}
    assert dataclasses.replace(SPEC, rank_map=one).key == dataclasses.replace(SPEC, rank_map=other).key
    assert dataclasses.replace(SPEC, alpha=16, dropout=0, max_grad_norm=1, weight_decay=0) == SPEC
    assert dataclasses.replace(SPEC, alpha=16).key == SPEC.key
    assert dataclasses.replace(SPEC, evaluate=["tune"]).key == SPEC.key


def test_the_key_is_the_same_in_a_fresh_process_and_in_the_next_version():
    code = "import json, sys; from rankexp.trial_spec import *; print(TrialSpec.from_dict(json.load(sys.stdin)).key)"
    values = json.dumps(SPEC.to_dict())
    done = subprocess.run([sys.executable, "-c", code], input=values, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == SPEC.key
    pinned = dataclasses.replace(SPEC, engine=1)
    assert pinned.key == "32bfc7d66a57dd787da5", "old records would be orphaned: is that meant?"
    nested = dataclasses.replace(SPEC, method="nested", nested_ranks=(2, 4), engine=1)
    assert nested.key == "d3e60bc16f2fbafa839b", "so would nested ones"


@pytest.mark.parametrize(
    ("method", "ranks"), [("lora", {}), ("dora", {"q": 0}), ("head", {"q": 4}), ("full", {"q": 4})]
)
def test_only_lora_has_ranks_and_it_has_some(method, ranks):
    with pytest.raises(ValueError, match=f"method '{method}' does not go with the rank map"):
        dataclasses.replace(SPEC, method=method, rank_map=ranks)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"method": "nested"}, "nested ranks"),
        ({"nested_ranks": (2, 4)}, "nested ranks"),
        ({"method": "adalora"}, "pruning"),
        ({"pruning": PRUNINGS[0]}, "pruning"),
        ({"dimension": 10}, "dimension"),
    ],
)
def test_a_setting_of_another_method_is_refused(changes, what):
    with pytest.raises(ValueError, match=f"does not go with {what}"):
        dataclasses.replace(SPEC, **changes)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"method": "dora", "initialisation": "pissa"}, "does not go with initialisation 'pissa'"),
        ({"method": "head", "rank_map": {}, "initialisation": "eva"}, "does not go with initialisation 'eva'"),
        ({"nested_losses": "summed"}, "method 'lora' does not go with nested losses 'summed'"),
        (
            {"method": "nested", "nested_ranks": (2, 4), "nested_losses": "both"},
            "does not go with nested losses 'both'",
        ),
        ({"initialisation": "svd"}, "does not go with initialisation 'svd'"),
        ({"method": "full", "rank_map": {}, "loraplus_lr_ratio": 2.0}, "does not go with a loraplus_lr_ratio of 2.0"),
        ({"loraplus_lr_ratio": 0.0}, "loraplus_lr_ratio is 0.0; it must be a finite number above 0"),
        ({"loraplus_lr_ratio": float("inf")}, "loraplus_lr_ratio is inf"),
    ],
)
def test_a_variant_that_cannot_be_is_refused(changes, what):
    with pytest.raises(ValueError, match=what):
        dataclasses.replace(SPEC, **changes)


def test_an_example_is_a_row_for_each_rank_only_where_losses_are_summed():
    nested = dataclasses.replace(SPEC, method="nested", nested_ranks=(1, 2, 4))
    summed = dataclasses.replace(nested, nested_losses="summed")
    assert [spec.copies for spec in (SPEC, nested, summed)] == [1, 1, 3]


def test_the_rank_of_a_spec():
    assert SPEC.rank == 4
    assert dataclasses.replace(SPEC, rank_map={"q": 4, "v": 2}).rank is None
    assert dataclasses.replace(SPEC, method="head", rank_map={}).rank == 0
    assert dataclasses.replace(SPEC, method="full", rank_map={}).rank is None


@pytest.mark.slow
@given(
    st.dictionaries(st.text(max_size=3), st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text())
)
def test_equal_values_have_one_canonical_form(values):
    text = canonical_json(dict(reversed(values.items())))
    assert text == canonical_json(values)
    assert json.loads(text) == values
    assert len(content_key(values, 8)) == 8


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_has_no_key(number):
    with pytest.raises(ValueError, match="Out of range"):
        content_key({"a": number})
