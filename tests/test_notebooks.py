"""The notebooks, run from top to bottom on a finished study."""

import ast
import json
from pathlib import Path

import pytest
from fake_study import make_study

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def code_of(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_there_are_notebooks():
    assert [path.name for path in NOTEBOOKS] == ["choosing_a_rank.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_a_notebook_defines_nothing_and_carries_no_output(path):
    lines = "\n".join(cell.replace("%matplotlib inline", "") for cell in code_of(path))
    kinds = {type(node) for node in ast.walk(ast.parse(lines))}
    assert not kinds & {ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda}
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert all(not cell.get("outputs") for cell in cells)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
@pytest.mark.filterwarnings("default")  # of the notebook's own machinery
def test_a_notebook_runs_and_shows_what_it_promises(path, tmp_path):
    import nbformat
    from nbclient import NotebookClient

    make_study(tmp_path / "runs", name="rank_grid-01234567", seeds=5, open_test=True)
    (tmp_path / "notebooks").mkdir()
    book = nbformat.read(path, as_version=4)
    NotebookClient(book, timeout=120, resources={"metadata": {"path": str(tmp_path / "notebooks")}}).execute()
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.get("text", "") for output in outputs)
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert "SETTLED - Use rank 8." in printed
    assert len(pictures) == 4
