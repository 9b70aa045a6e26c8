"""The notebooks, run from top to bottom on a finished study."""

import ast
import io
import json
from pathlib import Path

import pytest
from fake_study import make_study
from thorough import later_but
from tiny_language import study_of

from rankexp.progress import Display
from rankexp.study.session import run_study

NOTEBOOKS = {path.stem: path for path in (Path(__file__).parents[1] / "notebooks").glob("*.ipynb")}
OF_CHATS = "choosing_a_rank_for_a_chat_model"


def cells_of(name):
    return [
        cell for cell in json.loads(NOTEBOOKS[name].read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"
    ]


def test_there_are_notebooks():
    assert set(NOTEBOOKS) == {"choosing_a_rank", OF_CHATS}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_defines_nothing_and_carries_no_output(name):
    lines = "\n".join("".join(cell["source"]).replace("%matplotlib inline", "") for cell in cells_of(name))
    kinds = {type(node) for node in ast.walk(ast.parse(lines))}
    assert not kinds & {ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda}
    assert all(not cell["outputs"] for cell in cells_of(name))


def of_texts(folder):
    make_study(folder / "runs", name="rank_grid-01234567", seeds=5, open_test=True)
    return "SETTLED - Use rank 8.", 4


def of_chats(folder):
    """A study of a tiny Llama that writes answers."""
    task = {"name": "sft", "path": str(folder / "rows.jsonl"), "generate": ["chrf"], "max_new_tokens": 8}
    ended = run_study(study_of(folder, study="sft", task=task), Display(io.StringIO())).study
    return f"{ended.verdict.status} - ", 3


@pytest.mark.slow
@pytest.mark.parametrize("name", later_but({"choosing_a_rank"}, NOTEBOOKS))
@pytest.mark.filterwarnings("default")  # of the notebook's own machinery
def test_a_notebook_runs_and_shows_what_it_promises(name, tmp_path):
    import nbformat
    from nbclient import NotebookClient

    said, drawn = (of_chats if name == OF_CHATS else of_texts)(tmp_path)
    (tmp_path / "notebooks").mkdir()
    book = nbformat.read(NOTEBOOKS[name], as_version=4)
    NotebookClient(book, timeout=120, resources={"metadata": {"path": str(tmp_path / "notebooks")}}).execute()
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.get("text", "") for output in outputs)
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert said in printed
    assert len(pictures) == drawn
