from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
from fake_study import MAPS, PRUNED, PRUNINGS, make_study
from thorough import later_but

from rankexp.analysis.study import load_study
from rankexp.lora.adalora import triplets_at
from rankexp.report import svg
from rankexp.report.canvas import COLOURS, NARROW, WIDE
from rankexp.report.document import document
from rankexp.report.sections import (
    contest,
    curves,
    decision,
    drawings,
    intrinsic,
    layers,
    learning_rates,
    pareto_front,
    power,
    pruning,
    quality_by_rank,
    rate_surface,
    spectrum,
    training_data,
)  # fmt: skip

pytestmark = pytest.mark.slow

FIGURES = drawings()


@pytest.fixture(scope="module")
def doc(tmp_path_factory):
    contest = {"contenders": PRUNED, "prunings": PRUNINGS}
    return document(
        load_study(make_study(tmp_path_factory.mktemp("study"), seeds=5, dimensions=(10, 100, 1000), **contest))
    )


@pytest.fixture(scope="module")
def located(tmp_path_factory):
    return document(load_study(make_study(tmp_path_factory.mktemp("located"), seeds=5, surface=True)))


@pytest.fixture
def drawn(name, doc, located):
    """The document of which a figure is drawn: a screen has the best of its rates, or a surface."""
    return located if name == "rate_surface" else doc


@pytest.mark.parametrize("name", later_but({"quality", "rate_surface", "truncation"}, FIGURES))
def test_the_same_document_gives_the_same_bytes(drawn, name):
    assert svg.svg_bytes(FIGURES[name].draw(drawn, WIDE)) == svg.svg_bytes(FIGURES[name].draw(drawn, WIDE))
    assert svg.png_bytes(FIGURES[name].draw(drawn, WIDE)).startswith(b"\x89PNG")


@pytest.mark.parametrize("name", FIGURES)
def test_files_carry_no_date(drawn, name):
    assert b"<dc:date>" not in svg.svg_bytes(FIGURES[name].draw(drawn, WIDE))


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_ranks_are_ticks_on_a_logarithmic_axis(doc, size):
    axes = quality_by_rank.draw(doc, size).axes[0]
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["4", "8", "16", "32"]
    assert axes.get_xticks().tolist() == [4, 8, 16, 32]


def test_quality_shows_means_intervals_margin_and_references(doc):
    axes = quality_by_rank.draw(doc).axes[0]
    drawn = [tuple(float(v) for v in line.get_ydata()) for line in axes.lines]
    reference = doc["ranks"]["32"]["mean"]
    for rank, row in doc["ranks"].items():
        assert (row["mean"],) in drawn
        if rank != "32":
            assert any(pytest.approx((reference + row["lower"], reference + row["upper"])) == ys for ys in drawn)
    assert any(ys == pytest.approx((reference - 0.02,) * 2) for ys in drawn)
    assert any(ys == (doc["references"]["full"]["mean"],) * 2 for ys in drawn)
    words = " ".join(text.get_text() for text in axes.texts)
    assert "head only 50.43%, below this scale" in words
    assert "chosen" in words
    assert "margin 2 points" in words


def test_every_seed_is_a_dot(doc):
    dots = quality_by_rank.draw(doc).axes[0].collections
    heights = [sorted(float(y) for y in found.get_offsets()[:, 1]) for found in dots]
    assert [sorted(row["seed_means"].values()) for row in doc["ranks"].values()] == heights


def test_the_plot_looks_at_the_ranks_and_holds_everything_drawn(doc):
    low, high = quality_by_rank.draw(doc).axes[0].get_ylim()
    assert low > doc["references"]["head"]["mean"]
    assert all(low < mean < high for row in doc["ranks"].values() for mean in row["seed_means"].values())


def test_a_cell_for_every_rank_and_rate_and_one_best_a_rank(doc):
    axes = learning_rates.draw(doc).axes[0]
    assert len(axes.patches) == 12
    texts = [text.get_text() for text in axes.texts]
    assert len(texts) == 12
    assert sum(text.endswith("best") for text in texts) == 4
    losses = {f"{row['tune_loss']:.3f}" for row in doc["screen"] if row["rank"]}
    assert {text.split("\n")[0] for text in texts} == losses


def test_a_surface_shows_every_run_a_curve_a_rank_and_each_optimum(located):
    found, axes = located["rate_surface"], rate_surface.draw(located).axes[0]
    assert learning_rates.draw(located) is None
    assert not any(row["best"] for row in located["screen"] if row["rank"])
    dots = [line for line in axes.lines if line.get_marker() in ("o", "^")]
    losses = {(row["learning_rate"], row["tune_loss"]) for row in located["screen"] if row["rank"]}
    top = axes.get_ylim()[1]
    shown = {point for line in dots for point in zip(line.get_xdata(), line.get_ydata(), strict=True)}
    assert shown == {(rate, min(loss, top)) for rate, loss in losses}
    assert {line.get_xdata()[0] for line in axes.lines if line.get_marker() == "D"} == {
        one["learning_rate"] for one in found["ranks"]
    }
    for one, curve in zip(found["ranks"], [line for line in axes.lines if len(line.get_xdata()) > 9], strict=True):
        lowest = np.argmin(curve.get_ydata())
        assert curve.get_ydata()[lowest] == pytest.approx(one["loss"], abs=1e-3)
        assert curve.get_xdata()[lowest] == pytest.approx(10 ** one["log10_optimum"], rel=0.03)


def test_runs_without_a_loss_say_why(doc):
    rows = [{**row, "tune_loss": None, "status": "diverged"} if i == 6 else row for i, row in enumerate(doc["screen"])]
    assert "diverged" in [text.get_text() for text in learning_rates.draw({**doc, "screen": rows}).axes[0].texts]


def test_sampled_rates_are_points(doc):
    row = next(row for row in doc["screen"] if row["rank"] == 8)
    rows = [{**row, "rank": 2 ** (2 + i % 3), "learning_rate": 1e-3 * 1.3**i, "best": i == 4} for i in range(9)]
    rows.append({**rows[0], "tune_loss": None, "status": "pruned", "best": False, "learning_rate": 2e-3})
    axes = learning_rates.draw({**doc, "screen": rows}).axes[0]
    assert axes.get_xscale() == "log"
    assert len(axes.lines) == 10
    assert len(axes.texts) == 1


def test_a_curve_for_each_rank(doc):
    axes = curves.draw(doc).axes[0]
    assert [line.get_label() for line in axes.lines] == [f"rank {rank}" for rank in (4, 8, 16, 32)]
    assert len({line.get_linestyle() for line in axes.lines}) == 4
    assert doc["curves"]["8"]["loss"][0] == pytest.approx(1.1 - 1 / 120)


def heights_of(axes):
    return [tuple(float(v) for v in line.get_ydata()) for line in axes.lines]


def test_a_bar_for_each_rank_but_the_reference_and_the_margin(doc):
    axes = decision.draw(doc).axes[0]
    bars = [tuple(line.get_xdata()) for line in axes.lines]
    for rank in ("4", "8", "16"):
        assert (doc["ranks"][rank]["lower"], doc["ranks"][rank]["upper"]) in bars
    assert [label.get_text() for label in axes.get_yticklabels()] == ["rank 4", "rank 8", "rank 16"]
    assert any(xs == pytest.approx((-0.02, -0.02)) for xs in bars)
    assert "−2" in [axes.xaxis.get_major_formatter()(value) for value in (-0.02, 0)]


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_a_bar_for_each_contender_the_best_on_top(doc, size):
    rows = doc["contest"]["rows"]
    axes = contest.draw(doc, size).axes[0]
    names = ["half", "falling", "adalora", "rising"]
    assert [label.get_text() for label in axes.get_yticklabels()] == names
    bars = {line.get_ydata()[0]: tuple(line.get_xdata()) for line in axes.lines if line.get_linewidth() > 2}
    assert bars == {i: (rows[name]["lower"], rows[name]["upper"]) for i, name in enumerate(names)}
    rings = {line.get_ydata()[0]: line.get_markerfacecolor() for line in axes.lines if line.get_marker() == "o"}
    assert rings == {0: COLOURS["paper"], 1: COLOURS["paper"], 2: COLOURS["paper"], 3: COLOURS["accent"]}
    assert axes.get_xlabel() == "difference to rank 8, in accuracy points"


def test_no_contenders_no_bars(doc):
    first = dict(list(doc["contest"]["rows"].items())[:1])
    assert contest.draw({**doc, "contest": None}) is None
    assert contest.draw({**doc, "contest": {**doc["contest"], "rows": first}}) is None


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_triplets_fall_as_the_history_says(doc, size):
    (line,), (text,) = (axes := pruning.draw(doc, size).axes[0]).lines, axes.texts
    drawn = dict(zip(line.get_xdata(), line.get_ydata(), strict=True))
    history = {step: triplets_at(step, PRUNINGS["adalora"], 48) for step in range(1, 61)}
    assert drawn.items() <= history.items()
    assert line.get_drawstyle() == "steps-post"
    assert {step: drawn[max(s for s in drawn if s <= step)] for step in history} == history
    assert (min(drawn), max(drawn), len(drawn)) == (1, 60, 1 + len(set(history.values())))
    assert (text.get_text(), text.xy) == ("32", (60, 32))
    assert axes.get_ylim()[0] == 0
    assert axes.get_legend() is None


def test_triplets_are_means_over_seeds_and_two_contenders_get_a_legend(doc, tmp_path):
    study = load_study(make_study(tmp_path, seeds=2, contenders=PRUNED, prunings=PRUNINGS, examples=200))
    trial = study.evidence("adalora")[1]
    history = tuple({**row, "triplets": row["triplets"] + 3} for row in trial.result.history[:50])
    study.by_key[trial.key] = replace(trial, result=replace(trial.result, history=history))
    row = document(study)["pruning"]["adalora"]
    found = dict(zip(row["steps"], row["triplets"], strict=True))
    assert (found[1], found[25], found[51], found[60], row["budget"]) == (49.5, 33.5, 32, 32, 32)
    axes = pruning.draw({**doc, "pruning": {"adalora": doc["pruning"]["adalora"], "other": row}}).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["adalora", "other"]
    assert len({line.get_linestyle() for line in axes.lines}) == 2


def test_no_pruning_without_a_contender_that_prunes(tmp_path):
    for name, maps in (("maps", MAPS), ("none", {})):
        found = document(load_study(make_study(tmp_path / name, seeds=2, contenders=maps, examples=200)))
        assert found["pruning"] is None
        assert pruning.draw(found) is None


def test_power_rises_with_seeds_and_examples(doc):
    axes = power.draw(doc).axes[0]
    lines = [heights for heights in heights_of(axes) if len(heights) > 5]
    assert len(lines) == 3
    assert all(list(heights) == sorted(heights) for heights in lines)
    assert all(more >= less - 1e-9 for less, more in zip(lines[0], lines[1], strict=True))
    assert (doc["power"]["now"],) in heights_of(axes)


def test_every_rank_stands_at_its_price(doc):
    axes = pareto_front.draw(doc).axes[0]
    points = {
        (float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in axes.lines if len(line.get_xdata()) == 1
    }
    assert points == {(row["trainable_parameters"], row["mean"]) for row in doc["ranks"].values()}
    assert {text.get_text().split("\n")[0] for text in axes.texts} == {f"rank {rank}" for rank in doc["ranks"]}


def test_training_and_new_examples_are_two_lines_and_the_gap_is_written(doc):
    axes = training_data.draw(doc).axes[0]
    rows = doc["training_data"]["ranks"].values()
    assert tuple(row["train"] for row in rows) in heights_of(axes)
    assert tuple(row["decide"] for row in rows) in heights_of(axes)
    assert [text.get_text() for text in axes.texts] == [f"{100 * row['gap']:+.2f}" for row in rows]


def test_energy_ends_at_the_whole_and_full_fine_tuning_is_beside_it(doc):
    axes = spectrum.draw_truncation(doc).axes[0]
    labels = [line.get_label() for line in axes.lines]
    assert labels == ["rank 4", "rank 8", "rank 16", "rank 32", "full fine-tuning"]
    assert all(heights[-1] == pytest.approx(1) for heights in heights_of(axes)[:4])


def test_similarity_shows_chance_and_seeds_beside_ranks(doc):
    labels = [line.get_label() for line in spectrum.draw_similarity(doc).axes[0].lines]
    assert labels == ["ranks 4, 32", "ranks 16, 32", "rank 4, two seeds", "rank 32, two seeds", "random subspaces"]


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_a_cell_for_every_layer_and_module(doc, size):
    axes = layers.draw(doc, size).axes[0]
    assert len(axes.patches) == 4
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1"]


def test_a_subspace_is_drawn_beside_the_ranks(doc):
    axes = intrinsic.draw(doc).axes[0]
    assert tuple(doc["intrinsic"]["dimensions"].values()) in heights_of(axes)
    assert doc["intrinsic"]["d90"] == next(
        int(n) for n, mean in doc["intrinsic"]["dimensions"].items() if mean >= 0.9 * doc["intrinsic"]["full"]
    )


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_to_draw_is_no_figure(doc, name):
    empty = dict.fromkeys(
        ("rate_surface", "power", "front", "training_data", "contest", "pruning", "spectrum", "intrinsic")
    )
    assert FIGURES[name].draw({**doc, "ranks": {}, "screen": [], "curves": {}, **empty}, WIDE) is None


def test_inlined_figures_share_no_id_and_no_colour_of_their_own(doc):
    drawn = svg.svg_bytes(quality_by_rank.draw(doc))
    first, second = (svg.inline(drawn, prefix, 'a <b> & "c"') for prefix in ("one", "two"))
    ids = [set(re.findall(r'\bid="([^"]+)"', text)) for text in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]
    for text, own in zip((first, second), ids, strict=True):
        root = ET.fromstring(text.replace("xlink:", ""))
        assert root.get("aria-label") == 'a <b> & "c"'
        assert set(re.findall(r"url\(#([^)]+)\)", text)) | set(re.findall(r'href="#([^"]+)"', text)) <= own
        assert "<style" not in text
        assert not re.findall(rf"(?<!, )({'|'.join(COLOURS.values())})", text)


def test_captions_say_what_is_drawn(doc, located):
    words = {name: drawing.caption(located if name == "rate_surface" else doc) for name, drawing in FIGURES.items()}
    assert all(word.title and word.reading and word.alt for word in words.values())
    assert "rank 8 71.94%" in words["quality"].alt
    assert "2 points below rank 32" in words["quality"].reading
    assert "rank 16 0.003" in words["learning_rates"].alt
    for one in located["rate_surface"]["ranks"]:
        assert f"rank {one['rank']} {one['learning_rate']:.3g} (" in words["rate_surface"].alt
    assert "adalora: 48 after step 1, 32 from step 25 to step 60, for a budget of 32" in words["pruning"].alt
