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


@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="no chromium on PATH")
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("kind", ["settled", "insufficient"])
def test_the_page_never_scrolls_sideways(tmp_path, width, kind):
    options = {"settled": {"seeds": 5, "open_test": True}, "insufficient": {"seeds": 1, "name": "n" * 90}}[kind]
    page = render_html(document(load_study(make_study(tmp_path / "runs", **options))))
    wrapper = tmp_path / "wrapper.html"
    wrapper.write_text(MEASURE.format(width=width, page=html.escape(page)))
    command = [BROWSER, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", wrapper.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search(r"<title>width=(\d+) figures=(\d+)</title>", dom)
    assert found, dom[-500:]
    assert int(found[1]) <= width
    assert int(found[2]) == page.count("<figure")
