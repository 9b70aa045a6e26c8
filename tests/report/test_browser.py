"""The report's page as a browser lays it out."""

import pytest
from chromium import BROWSER, answer, layout
from fake_study import make_study
from thorough import later

from rankexp.analysis.study import load_study
from rankexp.report.build import render_html
from rankexp.report.document import document

pytestmark = [pytest.mark.browser, pytest.mark.skipif(BROWSER is None, reason="no chromium on PATH")]

SORT = """
  const table = frame.querySelector("#decision table");
  const ranks = () => [...table.tBodies[0].rows].map(row => row.cells[0].textContent.trim()).join(" ");
  const seen = [ranks()], [rank, mean] = table.querySelectorAll("thead button");
  for (const button of [mean, mean, rank]) { button.click(); seen.push(ranks()); }
  return seen.join("|") + "|" + rank.closest("th").getAttribute("aria-sort");
"""


def test_a_heading_sorts_its_table_and_turns_it_round(tmp_path):
    page = render_html(document(load_study(make_study(tmp_path / "runs", seeds=5))))
    first, up, down, again, sort = answer(tmp_path, page, SORT).split("|")
    assert first.split(" ")[:4] == ["4", "8", "16", "32"]
    assert up.startswith("head only 4 8 16 32")
    assert down == "full fine-tuning 32 16 8 4 head only"
    assert again.startswith("4 8 16 32")
    assert sort == "ascending"


@pytest.mark.parametrize("width", [390, later(1280)])
@pytest.mark.parametrize("kind", ["settled", *(later(k) for k in ("insufficient", "failures"))])
def test_the_page_never_scrolls_sideways(tmp_path, width, kind):
    options = {
        "settled": {"seeds": 5, "open_test": True, "dimensions": (10, 100, 1000)},
        "insufficient": {"seeds": 1, "name": "n" * 90},
        "failures": {"seeds": 5, "diverged": [(4, 3)], "missing": [(8, 1)]},
    }[kind]
    page = render_html(document(load_study(make_study(tmp_path / "runs", **options))))
    taken, _, figures = layout(tmp_path, page, width)
    assert taken <= width
    assert figures == page.count("<figure")
