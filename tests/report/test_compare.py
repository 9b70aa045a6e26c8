from __future__ import annotations

import dataclasses
import re

import pytest
from fake_study import make_study
from matplotlib.backends.backend_agg import FigureCanvasAgg

from rankexp.analysis.study import load_study
from rankexp.record.studies import StudyStore
from rankexp.report.canvas import NARROW, WIDE
from rankexp.report.compare import compare, draw, write_comparison

pytestmark = pytest.mark.slow


def studies(folder, *changes, **settings):
    """Studies of one question, in a workspace each, with an option of ``task`` or another changed in each."""
    found = []
    for place, change in enumerate(changes):
        study = make_study(folder / str(place), examples=300, name=f"asked-0123456{place}", **settings)
        record = StudyStore(study).read()
        config = {**record.config, "workspace": f"runs-{place}", "jobs": place + 1, **change}
        StudyStore(study).write(dataclasses.replace(record, config=config))
        found.append(load_study(study))
    return found


def sized(classes, train):
    return {"task": {"name": "csv", "classes": classes, "sizes": {"train": train, "tune": 400}}}


def test_studies_are_called_by_the_options_that_tell_them_apart(tmp_path):
    doc = compare(studies(tmp_path, sized(2, 300), sized(2, 1200), sized(3, 300)))
    assert [row["options"] for row in doc["studies"]] == [
        {"task.classes": 2, "task.sizes.train": 300},
        {"task.classes": 2, "task.sizes.train": 1200},
        {"task.classes": 3, "task.sizes.train": 300},
    ]
    assert doc["studies"][1]["label"] == "task.classes=2, task.sizes.train=1200"
    assert doc["shared"] == {"model": "MiniLM-L6", "data": "sentiment", "margin": 0.02, "seeds": 3, "examples": 300}


@pytest.mark.parametrize(
    "changes",
    [
        [{}, {}, {}],  # nothing but where and how they ran
        [sized(2, 300), sized(2, 300), sized(3, 300)],  # two of them alike
        [sized(2, 300), {"task": {"name": "sentiment"}}, {"task": {"name": "other"}}],  # in too much
    ],
)
def test_else_they_keep_their_names(tmp_path, changes):
    doc = compare(studies(tmp_path, *changes))
    assert [row["label"] for row in doc["studies"]] == ["asked-01234560", "asked-01234561", "asked-01234562"]
    assert all(row["options"] == {} for row in doc["studies"])


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_the_legend_lies_beside_the_lines(tmp_path, size):
    figure = draw(compare(studies(tmp_path, sized(2, 300), sized(2, 1200), sized(3, 300))), size)
    FigureCanvasAgg(figure).draw()
    legend, axes = figure.legends[0].get_window_extent(), figure.axes[0].get_tightbbox()
    assert legend.y1 <= axes.y0 + 1
    assert figure.legends[0].get_texts()[0].get_text() == "task.classes=2, task.sizes.train=300"


def test_the_page_says_what_all_share_once_and_what_differs_in_a_column(tmp_path):
    page = write_comparison(studies(tmp_path, sized(2, 300), sized(3, 300)), tmp_path / "out").read_text()
    heads = re.findall(r'<th scope="col"[^>]*>([^<]*)</th>', page)
    assert heads[0] == "task.classes"
    assert not {"Model", "Data", "Margin", "Seeds", "Examples"} & set(heads)
    assert page.count("The margin is 2 points.") == 1


def test_what_they_do_not_share_is_a_column(tmp_path):
    one = studies(tmp_path / "one", sized(2, 300))
    two = studies(tmp_path / "two", {}, sized(3, 300), margin=0.03, seeds=4)[1:]
    page = write_comparison([*one, *two], tmp_path / "out").read_text()
    heads = re.findall(r'<th scope="col"[^>]*>([^<]*)</th>', page)
    assert {"Margin", "Seeds"} <= set(heads)
    assert "The margin is" not in page


@pytest.mark.parametrize(
    ("examples", "said"),
    [(300, "None of 2 studies names a rank."), (2000, "All 2 studies name a rank: rank 8 twice.")],
)
def test_the_page_begins_with_what_was_chosen(tmp_path, examples, said):
    folders = [make_study(tmp_path / name, examples=examples, seeds=5, name=f"{name}-01234567") for name in ("a", "b")]
    page = write_comparison([load_study(folder) for folder in folders], tmp_path / "out").read_text()
    assert f'<p class="lead">{said}</p>' in page
