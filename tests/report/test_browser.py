"""The report's page as a browser lays it out."""

import html
import re
import shutil
import subprocess

import pytest
from fake_study import make_study

from rankexp.analysis.results import load_study
from rankexp.report.build import render_html
from rankexp.report.document import document

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
MEASURE = """<!DOCTYPE html><body style="margin:0"><iframe style="width:{width}px;height:900px;border:0"
srcdoc="{page}"></iframe><script>
addEventListener("load", () => {{
  const frame = document.querySelector("iframe").contentDocument, shown = [...frame.querySelectorAll("figure svg")];
  const widths = [frame.documentElement.scrollWidth, frame.body.scrollWidth,
    ...[...frame.querySelectorAll("main *")].filter(e => !e.closest(".scroll, pre, svg"))
      .map(e => Math.ceil(e.getBoundingClientRect().right))];
  const figures = shown.filter(e => e.getBoundingClientRect().width > 0).length;
  document.title = `width=${{Math.max(...widths)}} figures=${{figures}}`;
}});
</script></body>"""


SORT = """<!DOCTYPE html><body><iframe style="width:{width}px;height:900px" srcdoc="{page}"></iframe><script>
addEventListener("load", () => {{
  const table = document.querySelector("iframe").contentDocument.querySelector("#decision table");
  const ranks = () => [...table.tBodies[0].rows].map(row => row.cells[0].textContent.trim()).join(" ");
  const seen = [ranks()], [rank, mean] = table.querySelectorAll("thead button");
  for (const button of [mean, mean, rank]) {{ button.click(); seen.push(ranks()); }}
  document.title = seen.join("|") + "|" + rank.closest("th").getAttribute("aria-sort");
}});
</script></body>"""


def title_of(folder, wrapper, page, width=1280):
    """Title of a page that holds ``page`` in a frame, after its script has run."""
    file = folder / "wrapper.html"
    file.write_text(wrapper.format(width=width, page=html.escape(page)))
    command = [BROWSER, *FLAGS, f"--user-data-dir={folder / 'profile'}", "--dump-dom", file.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search(r"<title>(.*?)</title>", dom)
    assert found, dom[-500:]
    return found[1]


@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="no chromium on PATH")
def test_a_heading_sorts_its_table_and_turns_it_round(tmp_path):
    page = render_html(document(load_study(make_study(tmp_path / "runs", seeds=5))))
    first, up, down, again, sort = title_of(tmp_path, SORT, page).split("|")
    assert first.split(" ")[:4] == ["4", "8", "16", "32"]
    assert up.startswith("head only 4 8 16 32")
    assert down == "full fine-tuning 32 16 8 4 head only"
    assert again.startswith("4 8 16 32")
    assert sort == "ascending"


@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="no chromium on PATH")
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("kind", ["settled", "insufficient", "failures"])
def test_the_page_never_scrolls_sideways(tmp_path, width, kind):
    options = {
        "settled": {"seeds": 5, "open_test": True, "dimensions": (10, 100, 1000)},
        "insufficient": {"seeds": 1, "name": "n" * 90},
        "failures": {"seeds": 5, "diverged": [(4, 3)], "missing": [(8, 1)]},
    }[kind]
    page = render_html(document(load_study(make_study(tmp_path / "runs", **options))))
    found = re.fullmatch(r"width=(\d+) figures=(\d+)", title_of(tmp_path, MEASURE, page, width))
    assert found
    assert int(found[1]) <= width
    assert int(found[2]) == page.count("<figure")
