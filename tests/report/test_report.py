from __future__ import annotations

import csv
import dataclasses
import html
import json
import math
import re
import shutil

import numpy as np
import pytest
from fake_study import SHAPES, make_study, make_trial
from scipy import stats

import rankexp
from rankexp.analysis.study import load_study
from rankexp.metrics import ACCURACY
from rankexp.ranks import RankMap
from rankexp.record.studies import Planned, Pruned, StudyStore
from rankexp.record.trials import TrialStore
from rankexp.report import build
from rankexp.report.build import write_report
from rankexp.report.canvas import NARROW
from rankexp.report.document import document
from rankexp.report.peft_config import target_modules
from rankexp.report.sections import contest, drawings

pytestmark = pytest.mark.slow

DRAWN = drawings().keys() - {"intrinsic", "contenders", "pruning", "rate_surface"}
FILES = {
    "report.html", "report.md", "report.json", "trials.csv", "manifest.json",
    *(f"figures/{name}.{kind}" for name in DRAWN for kind in ("svg", "png")),
}  # fmt: skip


@pytest.fixture(scope="module")
def settled(tmp_path_factory):
    folder = make_study(tmp_path_factory.mktemp("settled"), seeds=5, open_test=True)
    page = write_report(load_study(folder))
    return load_study(folder), page.parent


@pytest.fixture(scope="module")
def doc(settled):
    return strict_json(settled[1] / "report.json")


def strict_json(path):
    def refuse(constant):
        raise AssertionError(f"{constant} in {path}")

    return json.loads(path.read_text(), parse_constant=refuse)


def edit(folder, **changes):
    store = StudyStore(folder)
    store.write(dataclasses.replace(store.read(), **changes))


def reported(folder):
    """The document of a study, its page and its Markdown, for tests of words: figures are drawn and left blank."""
    doc = document(load_study(folder))
    drawn = build._draw(doc, NARROW)
    printed = dict.fromkeys(drawn, b'<svg viewBox="0 0 1 1"></svg>')
    page = build._render_html(doc, {"wide": printed, "narrow": printed})
    return json.loads(json.dumps(doc, allow_nan=False)), page, build._render_markdown(doc, drawn)


def test_the_files_are_those_promised(settled):
    _, folder = settled
    assert folder.name == "report"
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == FILES


def test_the_verdict_is_the_rules(settled, doc):
    verdict = settled[0].verdict
    assert (doc["status"], doc["chosen_rank"], doc["reference_rank"]) == ("SETTLED", 8, 32)
    assert (doc["margin"], doc["level"], doc["seeds"]) == (0.02, 0.05, 5)
    assert (doc["examples"], doc["groups"]) == (2000, 1840)
    assert (doc["edge"], doc["reason"]) == (None, verdict.reason)
    assert doc["summary"]["headline"] == "Use rank 8."


def test_every_number_of_the_decision_table_follows_from_the_scores(settled, doc):
    y = settled[0].scores.values
    ranks, seeds, examples = y.shape
    cells = y.mean(axis=2)
    reference = ranks - 1
    residual = cells - cells.mean(axis=1, keepdims=True) - cells.mean(axis=0) + cells.mean()
    pool_df = (ranks - 1) * (seeds - 1)
    pooled = 2 * examples * (residual**2).sum() / pool_df
    for i, (rank, row) in enumerate(doc["ranks"].items()):
        assert row["rank"] == int(rank)
        assert row["mean"] == pytest.approx(cells[i].mean())
        assert row["seed_sd"] == pytest.approx(cells[i].std(ddof=1))
        assert list(row["seed_means"].values()) == pytest.approx(cells[i].tolist())
        if i == reference:
            assert (row["difference"], row["p"]) == (0, None)
            continue
        d = y[i] - y[reference]
        by_seed, by_example = d.mean(axis=1), d.mean(axis=0)
        mss = examples * by_seed.var(ddof=1)
        msi = seeds * by_example.var(ddof=1)
        rest = d - by_seed[:, None] - by_example + d.mean()
        msr = (rest**2).sum() / ((seeds - 1) * (examples - 1))
        others = (pooled * (ranks - 1) - mss) / (ranks - 2)
        own = mss > others * stats.f.ppf(0.85, seeds - 1, (ranks - 2) * (seeds - 1))
        mss, seed_df = (mss, seeds - 1) if own else (pooled, pool_df)
        total = mss + msi - msr
        error = math.sqrt(max(total, mss, msi) / (seeds * examples))
        spread = mss**2 / seed_df + msi**2 / (examples - 1) + msr**2 / ((seeds - 1) * (examples - 1))
        df = max(total**2 / spread, 1) if total > 0 else seed_df
        t = stats.t.ppf(0.95, df)
        assert row["difference"] == pytest.approx(d.mean())
        assert row["standard_error"] == pytest.approx(error)
        assert (row["lower"], row["upper"]) == pytest.approx((d.mean() - t * error, d.mean() + t * error))
        assert row["p"] == pytest.approx(stats.t.sf((d.mean() + 0.02) / error, df), abs=1e-12)
        assert row["p_worse"] == pytest.approx(stats.t.cdf(d.mean() / error, df), abs=1e-12)


def test_a_rank_is_described_by_its_trials(settled, doc):
    trial = settled[0].chosen_trials(16)[0]
    row = doc["ranks"]["16"]
    assert (row["learning_rate"], row["alpha"], row["seeds"]) == (0.003, 16.0, 5)
    assert row["trainable_parameters"] == trial.spec.rank_map.cost(SHAPES) + 1155
    assert row["adapter_bytes"] == trial.result.cost["adapter_bytes"]
    assert row["cost"]["step_seconds_median"] == 0.2
    assert [row[name] for name in ("diverged", "collapsed", "out_of_memory", "failed", "waiting")] == [0] * 5


def test_references_are_scored_like_ranks(settled, doc):
    assert doc["references"].keys() == {"head", "full"}
    scores = settled[0].evidence("head")[0].scores("decide")
    groups = [
        scores.values["accuracy"][scores.group_ids == name].mean(dtype=float) for name in np.unique(scores.group_ids)
    ]
    assert doc["references"]["head"]["mean"] == pytest.approx(np.mean(groups))
    assert doc["references"]["full"]["learning_rate"] == 1e-4


def test_the_test_split_is_reported_for_the_pair(doc):
    test = doc["test"]
    assert test["ranks"].keys() == {"8", "32"}
    assert test["difference"] == pytest.approx(test["ranks"]["8"]["mean"] - test["ranks"]["32"]["mean"])
    assert test["lower"] < test["difference"] < test["upper"]
    assert test["confirmed"] is (test["lower"] > -0.02)
    assert f"{100 * test['ranks']['8']['mean']:.2f}%" in doc["summary"]["test"]


def test_the_config_to_paste_is_the_chosen_ranks(doc):
    assert doc["lora_config"] == {
        "task_type": "SEQ_CLS", "r": 8, "lora_alpha": 16.0, "use_rslora": False, "lora_dropout": 0.0, "target_modules": ["query", "value"],
        "rank_pattern": {}, "alpha_pattern": {}, "modules_to_save": ["classifier"], "learning_rate": 0.003,
    }  # fmt: skip


def test_the_pasted_config_is_python_and_says_the_same(doc):
    seen = {}
    code = doc["lora_config_python"].replace("from peft import LoraConfig", "")
    exec(code, {"LoraConfig": lambda **values: seen.update(values)})
    assert seen.items() <= doc["lora_config"].items()
    assert seen.keys() >= {"r", "lora_alpha", "use_rslora", "target_modules", "modules_to_save"}
    assert "0.003" in code


def test_endings_match_only_what_was_adapted():
    layers = ["bert.0.attention.output.dense", "bert.0.output.dense", "pooler.dense"]
    assert target_modules(layers[:2], layers) == ["output.dense"]
    assert target_modules(["a.proj"], ["a.proj"], head=["classifier.proj"]) == ["a.proj"]


def test_every_trial_and_its_key_are_listed(settled, doc):
    study, folder = settled
    keys = [item.key for item in study.record.planned]
    assert [row["key"] for row in doc["trials"]] == keys
    with (folder / "trials.csv").open() as file:
        assert [row["key"] for row in csv.DictReader(file)] == keys
    page = (folder / "report.html").read_text()
    assert all(key in page for key in keys)
    assert doc["versions"]["torch"] == ["2.13.0"]
    assert doc["versions"]["rankexp"] == [rankexp.__version__]


def test_the_same_study_gives_the_same_bytes(tmp_path):
    first, second = (write_report(load_study(make_study(tmp_path / name))).parent for name in ("a", "b"))
    for name in FILES:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_only_costs_and_times_depend_on_the_clock(tmp_path):
    study, again = (load_study(make_study(tmp_path / name, margin=0.005)) for name in ("a", "b"))
    for key, trial in again.by_key.items():
        kept = {name: trial.result.cost[name] for name in ("trainable_parameters", "adapter_bytes")}
        slower = {name: 3 * value for name, value in trial.result.cost.items()} | kept
        result = dataclasses.replace(trial.result, cost=slower, finished="2027-01-01T00:00:00+00:00")
        again.by_key[key] = dataclasses.replace(trial, result=result)
    assert document(study) != document(again)
    assert timeless(document(study)) == timeless(document(again))


def timeless(value):
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in {"cost", "created", "finished"}}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def test_hostile_names_are_shown_and_not_obeyed(tmp_path):
    evil = "<script>alert('x')</script>"
    folder = make_study(tmp_path, seeds=1, labels=[evil, "a|b"])
    record = StudyStore(folder).read()
    edit(folder, model={**record.model, "name": evil}, data={**record.data, "name": "[x](http://x)"})
    doc, page, text = reported(folder)
    assert doc["setup"]["model"]["name"] == evil
    assert "<script>alert" not in page
    assert html.escape(evil, quote=False).replace("'", "&#39;") in page
    assert "<script" not in text.replace("\\<", "")
    assert "\\[x\\](http://x)" in text


def test_a_diverged_seed_is_told_and_its_rank_not_chosen(tmp_path):
    doc, page, text = reported(make_study(tmp_path, seeds=5, diverged=[(8, 1)]))
    assert doc["chosen_rank"] != 8
    assert doc["ranks"]["8"]["unstable"] is True
    assert doc["ranks"]["8"]["diverged"] == 1
    assert doc["ranks"]["8"]["reading"] == "unstable"
    for rendered in (page, text):
        assert "the loss was nan at step 7" in rendered
        assert "1 diverged" in rendered
        assert "Rank 8 trained unstably" in rendered


def test_safe_for_instability_alone_does_not_promise_a_smaller_rank(tmp_path):
    doc, page, _ = reported(make_study(tmp_path, seeds=7, diverged=[(16, 1)]))
    assert (doc["status"], doc["chosen_rank"]) == ("SAFE", 8)
    assert doc["summary"]["headline"] == "Use rank 8."
    assert "unstably leave it unsettled" in page


def test_safe_says_that_less_may_do(tmp_path):
    doc, _, _ = reported(make_study(tmp_path, margin=0.0145, accuracies={4: 0.716, 8: 0.7195, 16: 0.722, 32: 0.722}))
    assert (doc["status"], doc["chosen_rank"]) == ("SAFE", 8)
    assert doc["summary"]["headline"] == "Use rank 8. A smaller one may do."
    assert "Rank 4 would do if you can lose up to" in " ".join(doc["summary"]["change"])


def test_failed_trials_are_told(tmp_path):
    folder = make_study(tmp_path, seeds=4)
    store, record = TrialStore(tmp_path), StudyStore(folder).read()
    old = next(item for item in record.planned if item.candidate == "r=32" and item.phase == "decide")
    trial = store.read(old.key)
    shutil.rmtree(trial.folder)
    store.write(trial.spec, dataclasses.replace(trial.result, status="failed", reason="out of memory", metrics={}), {})
    doc, page, text = reported(folder)
    assert doc["ranks"]["32"]["out_of_memory"] == 1
    assert doc["seeds"] == 3
    assert "failed: out of memory" in page
    assert "out of memory" in text


def test_one_seed_names_no_rank(tmp_path):
    doc, page, text = reported(make_study(tmp_path, seeds=1))
    assert (doc["status"], doc["chosen_rank"], doc["lora_config"], doc["test"]) == ("INSUFFICIENT", None, None, None)
    assert doc["ranks"]["8"]["lower"] is None
    assert "LoraConfig(" not in page + text
    assert "No rank can be named yet." in page


def test_thin_evidence_says_what_would_do(tmp_path):
    doc, page, _ = reported(make_study(tmp_path, margin=0.003, accuracies={8: 0.715, 16: 0.722, 32: 0.723}))
    assert doc["status"] == "INSUFFICIENT"
    needed = [f"{doc[name]:,}" for name in ("needed_seeds", "needed_examples") if doc[name]]
    assert needed
    assert any(number in " ".join(doc["summary"]["change"]) for number in needed)
    assert sum(doc["variance_shares"].values()) == pytest.approx(1)
    assert "keep to the reference, rank 32" in page
    assert "device" in page


def test_an_unfinished_study_names_no_rank(tmp_path):
    doc, page, text = reported(make_study(tmp_path, seeds=5, missing=[(8, 1)]))
    assert (doc["status"], doc["chosen_rank"], doc["reference_rank"]) == ("UNFINISHED", None, None)
    assert doc["ranks"]["8"]["waiting"] == 1
    assert doc["ranks"]["8"]["mean"] is not None
    assert doc["ranks"]["8"]["difference"] is None
    assert doc["summary"]["certainty"] == "19 of 20 runs of the decision are complete."
    assert "unfinished" in page
    assert "1 waiting" in page
    assert "LoraConfig(" not in text


@pytest.mark.parametrize("phases", [(), ("reference",), ("reference", "screen")])
def test_a_study_that_has_only_begun_is_reported(tmp_path, phases):
    folder = make_study(tmp_path)
    edit(folder, planned=tuple(item for item in StudyStore(folder).read().planned if item.phase in phases))
    doc, page, text = reported(folder)
    assert (doc["status"], doc["ranks"]) == ("UNFINISHED", {})
    assert ("Learning rate for each rank" in page) is ("screen" in phases)
    assert "Decision" not in text


def test_no_complete_seed_is_reported(tmp_path):
    doc, _, _ = reported(make_study(tmp_path, seeds=1, missing=[(8, 0)]))
    assert (doc["status"], doc["seeds"]) == ("UNFINISHED", 0)


def test_figures_of_an_earlier_report_go(tmp_path):
    folder = make_study(tmp_path)
    write_report(load_study(folder))
    edit(folder, planned=())
    page = write_report(load_study(folder))
    assert list((page.parent / "figures").iterdir()) == []


def test_a_single_rank(tmp_path):
    doc, page, _ = reported(make_study(tmp_path, accuracies={8: 0.72}))
    assert (doc["chosen_rank"], doc["edge"]) == (8, "low")
    assert "the only one tried" in page
    assert "measurably worse" not in page


@pytest.mark.parametrize(("accuracies", "edge", "words"), [
    ({4: 0.72, 8: 0.72, 16: 0.72}, "low", "Use rank 4 or less."),
    ({4: 0.60, 8: 0.66, 16: 0.72}, "high", "Use rank 16 or more."),
])  # fmt: skip
def test_a_choice_on_the_edge_says_so(tmp_path, accuracies, edge, words):
    doc, _, _ = reported(make_study(tmp_path, accuracies=accuracies, margin=0.03, seeds=5))
    assert (doc["edge"], doc["summary"]["headline"]) == (edge, words)


def test_without_references(tmp_path):
    folder = make_study(tmp_path)
    edit(folder, planned=tuple(item for item in StudyStore(folder).read().planned if item.phase != "reference"))
    doc, page, _ = reported(folder)
    assert doc["references"] == {}
    assert "full fine-tuning" not in page


def test_a_loss_score_is_in_nats(tmp_path):
    folder = make_study(tmp_path, seeds=5, margin=0.05)
    config = StudyStore(folder).read().config
    edit(folder, config={**config, "decide": {**config["decide"], "score": "loss"}})
    doc, page, _ = reported(folder)
    assert doc["ranks"]["8"]["mean"] < 0
    assert "0.05 nats" in page
    assert "points" not in page


def test_a_sampled_screen_with_several_alphas_and_pruned_runs(tmp_path):
    folder = make_study(tmp_path)
    store, record = TrialStore(tmp_path), StudyStore(folder).read()
    added = []
    for number, rank in enumerate((4, 8, 8, 16, 16, 32)):
        trial = make_trial(store, rank=rank, learning_rate=1.3e-3 * (1 + number), seed=1000,
                           accuracy=0.6 + number / 99, examples=200, splits=("tune",))  # fmt: skip
        spec = dataclasses.replace(trial.spec, alpha=32.0)
        key = store.write(spec, trial.result, {"tune": trial.scores("tune")}).key
        added.append(Planned(key, "screen", f"r={rank}", rank, "tuning"))
    pruned = dataclasses.replace(spec, rank_map=RankMap.uniform(SHAPES, 64), learning_rate=7e-3)
    StudyStore(folder).write_pruned(Pruned(Planned.guessed(pruned), pruned.to_dict(), ({"step": 3, "loss": 1.0},)))
    search = {**record.config["search"], "strategy": "tpe", "alphas": [16.0, 32.0]}
    edit(folder, planned=(*record.planned, *added), config={**record.config, "search": search})
    doc, page, _ = reported(folder)
    assert {row["alpha"] for row in doc["screen"]} == {16.0, 32.0}
    assert sum(row["status"] == "pruned" for row in doc["screen"]) == 1
    assert pruned.key in page
    assert "stopped at step 1" in page


def test_the_page_needs_nothing_else(settled):
    page = (settled[1] / "report.html").read_text()
    assert len(re.findall(r"<script\b", page)) == page.count("<script>") == 1  # its own, to sort tables
    assert not re.findall(r'(?:src|href)="(?!#)[^"]*"', page)
    assert not re.findall(r"url\((?!#)", page)
    assert "@import" not in page


def test_ids_of_the_page_are_unique_and_links_lead_somewhere(settled):
    page = (settled[1] / "report.html").read_text()
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', page)) | set(re.findall(r"url\(#([^)]+)\)", page)) <= set(ids)


def test_every_section_is_linked_from_the_top_of_the_page(tmp_path):
    contender = RankMap.uniform(SHAPES, 8), 0.72
    page = write_report(load_study(make_study(tmp_path, contenders={"rising": contender}))).read_text()
    linked = set(re.findall(r'href="#([a-z-]+)"', re.search(r"<nav.*?</nav>", page, re.S)[0]))
    sections = set(re.findall(r'<section id="([a-z-]+)"', page))
    assert "contest" in linked
    assert sections <= linked | {"verdict", "curves"}


@pytest.mark.parametrize(
    ("near", "said"),
    [
        (["r=8"], "No other is shown to be within 2 points of the best mean, that of rank 8 in every layer."),
        (
            ["r=8", "rising"],
            "2 of 3 are shown to be within 2 points of the best mean; the contender of these that was found in the "
            "least time is rising.",
        ),
    ],
)
def test_a_contest_names_who_came_near_the_best_in_the_least_time(near, said):
    rows = {name: {"better": False, "near_best": name in near} for name in ("r=8", "rising", "dora")}
    found = {"rank": 8, "margin": 0.02, "rows": rows, "cost": {"quickest": near[-1]}}
    sentence = contest.sentence({"contest": found, "metric": ACCURACY.card()})
    assert sentence.startswith("None of 2 contenders is shown to be better than rank 8 in every layer")
    assert said in sentence


def test_the_page_can_be_read_by_a_screen_reader(settled):
    page = (settled[1] / "report.html").read_text()
    figures = re.findall(r"<svg [^>]*>", page)
    assert len(figures) == 2 * len(DRAWN)
    assert all('role="img"' in tag and 'aria-label="' in tag for tag in figures)
    assert all("scope=" in tag for tag in re.findall(r"<th\b[^>]*>", page))
    assert page.count("<h1>") == 1
    assert '<html lang="en">' in page


def test_another_folder_can_be_asked_for(settled, tmp_path):
    assert write_report(settled[0], tmp_path / "here") == tmp_path / "here" / "report.html"


def test_what_the_screen_hung_on_is_shown_where_it_was_noted_and_nowhere_else(tmp_path):
    shares = {"rank": 0.1234, "learning_rate": 0.8766}
    noted = {"importance": {"method": "PED-ANOVA", "runs": 12, "best": 5, "shares": shares}}
    doc, page, text = reported(make_study(tmp_path / "a", notes=noted))
    assert doc["importance"] == noted["importance"]
    for shown in (page, text):
        assert "best 5 of 12 completed screening runs" in shown
        assert "decides nothing" in shown
        assert re.search(r"learning rate\W[^%]*88\s?%", shown)
    doc, page, text = reported(make_study(tmp_path / "b"))
    assert doc["importance"] is None
    assert "What the screen hung on" not in page + text
