"""The built wheel, installed elsewhere, with the source tree out of reach."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from tiny import OPTIONS, write_texts

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an environment that holds the wheel, and sees this one's other packages by a path file."""
    folder = tmp_path_factory.mktemp("elsewhere")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "env")], check=True)
    python = folder / "env" / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True)
    (site,) = (folder / "env" / "lib").glob("python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    program = str(folder / "env" / "bin" / "rankexp")
    return subprocess.run(
        [program, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_it_holds_the_configuration_and_the_templates(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = [p.relative_to(ROOT) for folder in ("conf", "sweeps") for p in (ROOT / folder).rglob("*.yaml")]
    assert len(wanted) > 15
    assert {f"rankexp/{path.as_posix()}" for path in wanted} <= names
    assert {"rankexp/py.typed", "rankexp/report/templates/report.html.j2"} <= names
    assert not any(name.startswith(("tests/", "bench/")) for name in names)


@pytest.mark.thorough
def test_it_is_the_installed_package_that_runs(installed: Path) -> None:
    python = str(installed / "env" / "bin" / "python")
    code = "import rankexp, rankexp.cli.compose as c; print(rankexp.__file__); print(c.resource('conf'))"
    said = subprocess.run([python, "-c", code], cwd=installed, capture_output=True, text=True, check=True).stdout
    assert all(Path(line).is_relative_to(installed / "env") for line in said.splitlines()), said


@pytest.mark.thorough
def test_it_composes_and_runs_a_sweep(installed: Path) -> None:
    shown = run(installed, "sweep", "--cfg", "job")
    assert shown.returncode == 0, shown.stderr
    assert "study: rank_grid" in shown.stdout
    write_texts(installed / "texts.csv")
    done = run(installed, "sweep", *OPTIONS, "task.path=texts.csv")
    assert done.returncode == 0, done.stderr
    (report,) = (installed / "runs" / "studies").glob("*/report/report.html")
    assert "verdict" in report.read_text(encoding="utf-8").lower()
