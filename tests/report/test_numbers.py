"""Every figure of a report, recomputed from the recorded scores and factors by other means."""

from __future__ import annotations

import json
import math
from itertools import combinations

import numpy as np
import pytest
from fake_study import SHAPES, make_study
from safetensors.numpy import load_file
from scipy import stats

from rankexp.analysis.statistics.comparison import Comparison, DecisionScores
from rankexp.analysis.study import load_study
from rankexp.report.document import document
from rankexp.report.sections import seed_noise, ship

pytestmark = pytest.mark.slow

MARGIN, LEVEL = 0.02, 0.05


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = make_study(tmp_path_factory.mktemp("study"), seeds=5, open_test=True, margin=MARGIN)
    return load_study(folder)


@pytest.fixture(scope="module")
def doc(study):
    return json.loads(json.dumps(document(study), allow_nan=False))


def pair_mean_squares(y, i, j):
    """Mean squares of the differences of two ranks, with the seed term pooled over ranks."""
    ranks, seeds, examples = y.shape
    d = y[i] - y[j]
    by_seed, by_example = d.mean(axis=1), d.mean(axis=0)
    rest = d - by_seed[:, None] - by_example + d.mean()
    msi, msr = seeds * by_example.var(ddof=1), (rest**2).sum() / ((seeds - 1) * (examples - 1))
    cells = y.mean(axis=2)
    residual = cells - cells.mean(axis=1, keepdims=True) - cells.mean(axis=0) + cells.mean()
    pool_df = (ranks - 1) * (seeds - 1)
    pooled, own = 2 * examples * (residual**2).sum() / pool_df, examples * by_seed.var(ddof=1)
    if ranks > 2:  # is the pair noisier than the rest of the pool?
        rest = (pooled * (ranks - 1) - own) / (ranks - 2)
        if own > rest * stats.f.ppf(0.85, seeds - 1, (ranks - 2) * (seeds - 1)):
            return own, seeds - 1, msi, msr
    return pooled, pool_df, msi, msr


def components(y, i, j):
    _, seeds, examples = y.shape
    mss, df, msi, msr = pair_mean_squares(y, i, j)
    rest = min(msr, max(mss, msi))
    return max((mss - rest) / examples, 0), max((msi - rest) / seeds, 0), rest, df / (seeds - 1)


def chance_to_accept(found, seeds, examples):
    """Power by the noncentral t distribution of scipy's statistics module."""
    seed, example, rest, df_per_seed = found
    error = math.sqrt(seed / seeds + example / examples + rest / (seeds * examples))
    mss, msi = examples * seed + rest, seeds * example + rest
    total = mss + msi - rest
    spread = mss**2 / (df_per_seed * (seeds - 1)) + msi**2 / (examples - 1) + rest**2 / ((seeds - 1) * (examples - 1))
    df = max(total**2 / spread, 1)
    return stats.nct.sf(stats.t.ppf(1 - LEVEL, df), df, MARGIN / error)


def test_the_variance_is_that_of_the_pair_that_decided(study, doc):
    y = study.scores.values
    _, seeds, examples = y.shape
    ranks = list(study.ranks)
    i, j = (ranks.index(rank) for rank in doc["variance"]["compared"])
    seed, example, rest, _ = components(y, i, j)
    parts = {"seeds": seed / seeds, "examples": example / examples, "residual": rest / seeds / examples}
    assert doc["variance"]["standard_error"] == pytest.approx(math.sqrt(sum(parts.values())))
    for name, variance in (("seeds", seed), ("examples", example), ("residual", rest)):
        row = doc["variance"]["sources"][name]
        assert row["variance"] == pytest.approx(variance)
        assert row["sd"] == pytest.approx(math.sqrt(variance))
        assert row["share"] == pytest.approx(parts[name] / sum(parts.values()))


def test_power_and_what_it_takes(study, doc):
    y = study.scores.values
    _, seeds, examples = y.shape
    ranks = list(study.ranks)
    found = components(y, *(ranks.index(rank) for rank in doc["power"]["compared"]))
    assert doc["power"]["now"] == pytest.approx(chance_to_accept(found, seeds, examples), abs=1e-6)
    for count, curve in doc["power"]["curves"].items():
        for n, value in curve:
            assert value == pytest.approx(chance_to_accept(found, n, int(count)), abs=1e-6)
    for name, at in (("seeds", lambda n: (n, examples)), ("examples", lambda n: (seeds, n))):
        needed = doc["power"][name]
        least = 3 if name == "seeds" else 2
        assert chance_to_accept(found, *at(needed)) >= 0.8
        assert needed == least or chance_to_accept(found, *at(needed - 1)) < 0.8


def test_the_price_of_more_evidence(study, doc):
    hours = (12.5 + 4.0) / 3600  # of every run of the made-up study
    ranks, verdict = len(study.ranks), study.verdict
    cost, plan = doc["cost"], doc["power"]
    assert cost["device_hours_per_seed"] == pytest.approx(ranks * hours)
    assert cost["device_hours"] == pytest.approx(hours * len(study.by_key))
    assert cost["tuning_device_hours"] == pytest.approx(hours * (3 + 12))
    assert cost["more"]["seeds"] == pytest.approx(max(plan["seeds"] - verdict.seeds, 0) * ranks * hours)
    scoring = ranks * verdict.seeds * 4.0 / 3600 / 3  # decide is one of three splits of equal size
    more = max(plan["examples"] - verdict.examples, 0) / verdict.examples
    assert cost["more"]["examples"] == pytest.approx(more * scoring)


def test_the_front_and_how_sure_it_is(study, doc):
    y = study.scores.values
    means, rng = y.mean(axis=(1, 2)), np.random.default_rng(99)
    found = np.zeros(len(means))
    for _ in range(800):
        drawn = y[:, rng.integers(y.shape[1], size=y.shape[1])][:, :, rng.integers(y.shape[2], size=y.shape[2])]
        again = drawn.mean(axis=(1, 2))
        found += [all(again[k] > again[:k]) for k in range(len(again))]
    for k, row in enumerate(doc["front"].values()):
        assert row["on_front"] is bool(all(means[k] > means[:k]))
        assert row["share"] == pytest.approx(found[k] / 800, abs=0.05)
        assert row["parameters"] == doc["ranks"][str(study.ranks[k])]["trainable_parameters"]


def by_document(scores):
    return np.array(
        [scores.values["accuracy"][scores.group_ids == name].mean(dtype=float) for name in np.unique(scores.group_ids)]
    )


def trial_of(study, rank):
    return study.chosen_trials(rank)[0]


def test_the_intrinsic_dimension_is_the_least_that_reaches_its_share(tmp_path):
    study = load_study(make_study(tmp_path, examples=400, dimensions=(10, 100, 1000)))
    found = document(study)["intrinsic"]
    means = {n: by_document(study.evidence(f"d={n}")[0].scores("decide")).mean() for n in (10, 100, 1000)}
    full, head = (by_document(study.evidence(name)[0].scores("decide")).mean() for name in ("full", "head"))
    assert found["dimensions"] == pytest.approx({str(n): mean for n, mean in means.items()})
    assert (found["full"], found["head"], found["target"]) == pytest.approx((full, head, 0.9 * full))
    assert found["gain_target"] == pytest.approx(head + 0.9 * (full - head))
    assert found["d90"] == min(n for n, mean in means.items() if mean >= 0.9 * full)
    factors = {rank: load_file(trial_of(study, rank).adapter / "adapter_model.safetensors") for rank in study.ranks}
    numbers = {rank: sum(x.size for key, x in named.items() if ".lora_" in key) for rank, named in factors.items()}
    assert found["prices"] == {str(rank): size for rank, size in numbers.items()}
    assert found["d90_of_gain"] == next((n for n, mean in means.items() if mean >= found["gain_target"]), None)


def test_the_screen_and_the_curves_are_those_of_the_trials(study, doc):
    for row in doc["screen"]:
        trial = study.by_key[row["key"]]
        scores = trial.scores("tune")
        assert row["tune_loss"] == pytest.approx(scores.values["loss"].mean(dtype=np.float64))
        assert row["tune"]["accuracy"] == pytest.approx(scores.values["accuracy"].mean(dtype=float))
        rivals = [other for other in doc["screen"] if other["candidate"] == row["candidate"]]
        assert row["best"] is (row["tune_loss"] == min(other["tune_loss"] for other in rivals))
    for rank, curve in doc["curves"].items():
        losses = np.mean([[step["loss"] for step in t.result.history] for t in study.chosen_trials(int(rank))], axis=0)
        assert curve["loss"] == pytest.approx(losses.tolist())
        assert curve["steps"] == list(range(1, 61))


def test_quality_on_training_examples(study, doc):
    assert doc["training_data"]["examples"] == 2000
    for rank, row in doc["training_data"]["ranks"].items():
        trials = study.chosen_trials(int(rank))
        train, decide = (
            [t.scores(split).values["accuracy"].mean(dtype=float) for t in trials] for split in ("train", "decide")
        )
        gaps = np.subtract(train, decide)
        assert row["train"] == pytest.approx(np.mean(train))
        assert row["decide"] == pytest.approx(np.mean(decide))
        assert row["gaps"] == pytest.approx(gaps.tolist())
        assert (row["gap"], row["gap_seed_sd"]) == pytest.approx((gaps.mean(), gaps.std(ddof=1)))


def dense_updates(study, rank):
    """Full products of every layer by seed, scaled as alpha over rank says."""
    found = {}
    for trial in study.chosen_trials(rank)[:3]:
        tensors = load_file(trial.folder / "adapter" / "adapter_model.safetensors")
        factors = {
            name: [tensors[f"base_model.model.{name}.lora_{f}.weight"].astype(np.float64) for f in "BA"]
            for name in SHAPES
        }
        found[trial.spec.seed] = {name: 16.0 / rank * b @ a for name, (b, a) in factors.items()}
    return found


def test_spectra_are_those_of_the_dense_updates(study, doc):
    for rank in study.ranks:
        runs = dense_updates(study, rank)
        spectra = {
            name: np.mean([np.linalg.svd(run[name], compute_uv=False)[:rank] for run in runs.values()], axis=0)
            for name in SHAPES
        }
        rows = {layer["name"]: layer["ranks"][str(rank)] for layer in doc["spectrum"]["layers"]}
        for name, values in spectra.items():
            assert rows[name]["singular_values"] == pytest.approx(values.tolist(), rel=1e-7)
            shares = values / values.sum()
            assert rows[name]["stable_rank"] == pytest.approx((values**2).sum() / values[0] ** 2)
            assert rows[name]["entropy_rank"] == pytest.approx(math.exp(-(shares * np.log(shares)).sum()))
            for k in (4, 8, 16):
                assert rows[name]["energy"][str(k)] == pytest.approx((values[:k] ** 2).sum() / (values**2).sum())
        for measure in ("stable_rank", "entropy_rank"):
            mean = np.mean([row[measure] for row in rows.values()])
            assert doc["spectrum"]["means"][str(rank)][measure] == pytest.approx(mean)
        curve = doc["spectrum"]["truncation"]["energy"][str(rank)]
        for k, value in curve.items():
            kept = [(v[: int(k)] ** 2).sum() / (v**2).sum() for v in spectra.values()]
            assert value == pytest.approx(np.mean(kept))


def test_similarity_is_that_of_dense_singular_vectors(study, doc):
    left = {
        (rank, seed): {name: np.linalg.svd(delta)[0] for name, delta in layers.items()}
        for rank in study.ranks
        for seed, layers in dense_updates(study, rank).items()
    }

    def overlap(one, other, size):
        return np.mean([((one[n][:, :size].T @ other[n][:, :size]) ** 2).sum() / size for n in SHAPES])

    found = doc["spectrum"]["similarity"]
    for place, size in enumerate(found["sizes"]):
        for pair, values in found["between_ranks"].items():
            low, high = (int(rank) for rank in pair.split(", "))
            expected = np.mean([overlap(left[low, s], left[high, s], size) for s in (0, 1, 2)])
            assert values[place] == pytest.approx(expected, abs=1e-6)
        for rank, values in found["between_seeds"].items():
            expected = np.mean(
                [overlap(left[int(rank), s], left[int(rank), t], size) for s, t in combinations(range(3), 2)]
            )
            assert values[place] == pytest.approx(expected, abs=1e-6)
        assert found["random"][place] == pytest.approx(np.mean([size / out for _, out in SHAPES.values()]))


def test_what_full_fine_tuning_would_lose(study, doc):
    trial = study.evidence("full")[0]
    values = load_file(trial.folder / "adapter" / "update_spectrum.safetensors")
    for rank in study.ranks:
        kept = [(v[:rank].astype(float) ** 2).sum() / (v.astype(float) ** 2).sum() for v in values.values()]
        assert doc["spectrum"]["full"]["captured"][str(rank)] == pytest.approx(np.mean(kept))


def test_the_proposed_map_keeps_what_it_says_within_its_budget(study, doc):
    found = doc["spectrum"]["map"]
    assert (found["budget_rank"], found["from_rank"], found["tested"]) == (8, 32, False)
    parameters = sum(rank * sum(SHAPES[name]) for name, rank in found["ranks"].items())
    assert parameters == found["parameters"] <= found["uniform_parameters"] == 8 * sum(sum(s) for s in SHAPES.values())
    rows = {layer["name"]: np.array(layer["ranks"]["32"]["singular_values"]) for layer in doc["spectrum"]["layers"]}
    total = sum((values**2).sum() for values in rows.values())
    kept = sum((values[: found["ranks"][name]] ** 2).sum() for name, values in rows.items())
    uniform = sum((values[:8] ** 2).sum() for values in rows.values())
    assert found["kept"] == pytest.approx(kept / total)
    assert found["uniform_kept"] == pytest.approx(uniform / total)
    assert found["kept"] >= found["uniform_kept"]


def test_the_opened_test_pair(study, doc):
    opened = study.test_scores
    cells = {rank: [opened[t.key] for t in study.chosen_trials(rank)] for rank in (8, 32)}

    y = np.array([[by_document(scores) for scores in cells[rank]] for rank in (8, 32)])
    mss, df, msi, msr = pair_mean_squares(y, 0, 1)
    seeds, examples = y.shape[1:]
    error = math.sqrt(max(mss + msi - msr, mss, msi) / (seeds * examples))
    total = mss + msi - msr
    spread = mss**2 / df + msi**2 / (examples - 1) + msr**2 / ((seeds - 1) * (examples - 1))
    t = stats.t.ppf(1 - LEVEL, max(total**2 / spread, 1) if total > 0 else df)
    mean = y[0].mean() - y[1].mean()
    test = doc["test"]
    assert test["difference"] == pytest.approx(mean)
    assert (test["lower"], test["upper"]) == pytest.approx((mean - t * error, mean + t * error))
    assert test["confirmed"] is bool(mean - t * error > -MARGIN)


def test_what_each_rank_recovers_of_full_fine_tuning(study, doc):
    def accuracy(name):
        """Mean over documents, of the first seed: the only one that the references have."""
        scores = next(t for t in study.evidence(name) if t.spec.seed == 0).scores("decide")
        return np.mean(
            [scores.values["accuracy"][scores.group_ids == group].mean(dtype=float) for group in set(scores.group_ids)]
        )

    gain = accuracy("full") - accuracy("head")
    found = doc["recovered"]
    assert (found["gain"], found["seeds"]) == (pytest.approx(gain), 1)
    shares = {str(rank): (accuracy(f"r={rank}") - accuracy("head")) / gain for rank in study.ranks}
    assert found["ranks"] == pytest.approx(shares)


def by_documents(scores):
    return np.mean([scores.values["accuracy"][scores.group_ids == g].mean(dtype=float) for g in set(scores.group_ids)])


def test_which_adapter_to_ship_and_what_of_its_lead_is_selection(study, doc):
    trials = study.chosen_trials(doc["chosen_rank"])
    tune = [trial.scores("tune").values["accuracy"].mean(dtype=float) for trial in trials]
    best = trials[int(np.argmax(tune))]
    found = doc["ship"]
    assert (found["key"], found["seed"], found["seeds"], found["there"]) == (best.key, best.spec.seed, 5, True)
    assert (study.store.workspace / found["folder"]).samefile(best.adapter)
    assert found["tune"] == pytest.approx({"score": max(tune), "mean": np.mean(tune)})
    for split, scores in (
        ("decide", {t.key: t.scores("decide") for t in trials}),
        ("test", {t.key: study.test_scores[t.key] for t in trials}),
    ):
        means = {key: by_documents(one) for key, one in scores.items()}
        assert found[split] == pytest.approx({"score": means[best.key], "mean": np.mean(list(means.values()))})
    said = " ".join(ship.sentences(doc))
    lead, left = (found[split]["score"] - found[split]["mean"] for split in ("tune", "test"))
    assert f"seed {best.spec.seed} of rank {doc['chosen_rank']}" in said
    assert f"{100 * lead:.2f}".rstrip("0").rstrip(".") + " points above their mean" in said
    share = f"some {100 * (1 - left / lead):.0f}%" if 0 < left < lead else "none" if left >= lead else "all"
    assert f"{share} of its lead is selection" in said


@pytest.mark.parametrize(("left", "share"), [(0.4, "none"), (0.1, "some 50%"), (0.0, "all"), (-0.3, "all")])
def test_the_share_of_a_lead_that_is_selection(doc, left, share):
    beside = {"tune": {"score": 0.7, "mean": 0.5}, "test": {"score": 0.6 + left, "mean": 0.6}}
    assert f"{share} of its lead is selection" in ship.sentences({**doc, "ship": {**doc["ship"], **beside}})[1]


def test_without_test_it_is_decide_that_shows_what_is_left_of_a_lead(doc):
    said = " ".join(ship.sentences({**doc, "ship": {**doc["ship"], "test": None, "there": False}}))
    assert "On decide, which took no part" in said
    assert "whose weights were cleaned away" in said
    assert ship.sentences({**doc, "ship": None}) == []


def test_how_much_seeds_differ(study, doc):
    trials = {rank: study.chosen_trials(rank) for rank in study.ranks}
    means = {rank: np.array([by_documents(t.scores("decide")) for t in own]) for rank, own in trials.items()}
    found = doc["seed_noise"]
    assert (found["seeds"], found["between_seeds"], found["between_ranks"]) == (5, None, None)  # there are documents
    expected = {(i, j): np.std(means[i] - means[j], ddof=1) for i, j in combinations(study.ranks, 2)}
    assert {(pair["low"], pair["high"]): pair["sd"] for pair in found["pairs"]} == pytest.approx(expected)
    assert f"ranks 4 and 8 {100 * expected[4, 8]:.2f} points" in seed_noise.sentence(found, study.metric)


def test_on_how_many_answers_two_runs_disagree():
    draw = np.random.default_rng(0)
    values = (draw.random((3, 4, 50)) < 0.7).astype(float)
    values[1, 2] = np.nan  # a seed that one rank lacks
    scores = DecisionScores(values, (4, 8, 16), (0, 1, 2, 3), tuple(map(str, range(50))), 50)
    found = seed_noise.seed_noise(Comparison(scores, margin=0.02, unstable=(16,)))
    kept = values[:2, [0, 1, 3]]
    seeds = [np.mean(kept[k, i] != kept[k, j]) for k in range(2) for i, j in combinations(range(3), 2)]
    ranks = [np.mean(kept[0, j] != kept[1, j]) for j in range(3)]
    assert found["seeds"] == 3
    assert found["between_seeds"] == pytest.approx(np.mean(seeds))
    assert found["between_ranks"] == pytest.approx(np.mean(ranks))
    assert [(pair["low"], pair["high"]) for pair in found["pairs"]] == [(4, 8)]
    lone = DecisionScores(values[:, :1], (4, 8, 16), (0,), scores.groups, 50)
    assert seed_noise.seed_noise(Comparison(lone, margin=0.02)) is None
