"""The page that MLflow shows."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from mirrored import NAME, OF_MLFLOW, TRIALS, client_of, closed_port, runs_of

from rankexp.analysis.study import Study
from rankexp.tracking import MlflowTracker, TrackingError, open_ui
from rankexp.tracking.page import page_url

pytestmark = OF_MLFLOW


def test_the_page_is_kept_once_a_user_changed_it(tracker: MlflowTracker, study: Study) -> None:
    tracker.sync(study)
    client = client_of(tracker)
    key = f"mlflow.sharedViewState.{NAME}"
    view = json.loads(client.get_experiment("1").tags[key])
    state = json.loads(view["state"])
    assert view["name"] == NAME
    assert state["searchFilter"] == f"tags.study = '{NAME}' and tags.kind = 'trial'"
    assert len(runs_of(tracker, state["searchFilter"])) == TRIALS
    assert {c["metricSectionId"] for c in state["compareRunCharts"]} <= {s["uuid"] for s in state["compareRunSections"]}
    client.set_experiment_tag("1", key, "the user's")
    tracker.summary(study, study.store.folder / "report")
    assert client.get_experiment("1").tags[key] == "the user's"


def test_the_page_says_why_it_cannot_open(tmp_path: Path, workspace: Path) -> None:
    with pytest.raises(TrackingError, match=r"holds no mlflow\.db"):
        open_ui(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(TrackingError, match=r"port \d+ of 127.0.0.1 cannot be used"):
            open_ui(workspace, port=taken.getsockname()[1])


_UI = """
import sys
from pathlib import Path
from rankexp.tracking import open_ui
open_ui(Path(sys.argv[1]), port=int(sys.argv[2]), open_browser=False, say=lambda url: print(url, flush=True))
"""


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.browser
def test_the_page_shows_curves_and_parallel_coordinates(
    tracker: MlflowTracker, study: Study, workspace: Path, tmp_path: Path
) -> None:
    tracker.sync(study)
    port = closed_port()
    command = [sys.executable, "-c", _UI, str(workspace), str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            url = server.stdout.readline().strip()
            assert url == page_url(f"http://127.0.0.1:{port}", "1", NAME)
            page = _rendered(url, tmp_path / "profile")
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(30) == 143
    assert "Parallel Coordinates" in page
    assert "train/loss" in page
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def _rendered(url: str, profile: Path) -> str:
    """The page's HTML after some virtual time, which a busy machine may need more of."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("chromium is not installed")
    flags = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--window-size=1600,1300", "--dump-dom",
    ]  # fmt: skip
    page = ""
    for budget in (30_000, 45_000, 45_000, 60_000):
        command = [chromium, *flags, f"--user-data-dir={profile}", f"--virtual-time-budget={budget}", url]
        page = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
        if "Parallel Coordinates" in page:
            break
    return page
