"""Tasks of language models: rows of one's own, bodies of functions, and strings to translate."""

import ast
import json

import numpy as np
import pytest
from tiny_language import write_rows

from rankexp.models.tokenizers import Words
from rankexp.scorers.base import find_scorers
from rankexp.tasks.base import TaskError, make_task
from rankexp.tasks.sft import code
from rankexp.tasks.sft.code import CodeTask
from rankexp.tasks.sft.strings import StringsTask
from rankexp.tasks.sft.task import SftTask
from rankexp.testing import TaskConformance


class LanguageConformance(TaskConformance):
    tokenize = Words(288)

    def test_what_is_learned_is_never_the_first_token(self):
        for split in self.data().splits.values():
            assert not any(targets[0] for targets in split.targets)
            assert all(targets.any() for targets in split.targets)

    def test_prompts_and_references_are_those_of_the_rows(self):
        split = self.data().splits["decide"]
        decode = self.tokenize.tokenizer.decode
        for ids, prompt, reference in zip(split.tokens, split.prompt_texts, split.references, strict=True):
            text = decode(ids, clean_up_tokenization_spaces=False)
            assert (prompt + reference).startswith(text[: len(prompt + reference)])
            assert reference


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl")


class TestSft(LanguageConformance):
    path = ""

    @pytest.fixture(autouse=True)
    def _rows(self, rows):
        type(self).path = str(rows)

    def make_task(self):
        return SftTask(path=self.path, generate=["chrf"])


@pytest.mark.thorough
@pytest.mark.slow
class TestCode(LanguageConformance):
    def make_task(self):
        sizes = {"train": 60, "tune": 20, "decide": 30, "test": 30}
        return CodeTask(sizes=sizes, max_length=2000, generate=["code_parses", "code_match"])

    def test_a_row_is_a_function_that_parses_cut_after_its_docstring(self):
        split = self.data().splits["decide"]
        for prompt, reference in zip(split.prompt_texts, split.references, strict=True):
            (function,) = ast.parse(prompt + reference).body
            assert isinstance(function, ast.FunctionDef)
            (beginning,) = ast.parse(prompt).body
            assert ast.get_docstring(beginning) == ast.get_docstring(function)
            assert len(beginning.body) == 1 < len(function.body)
            assert len(reference.splitlines()) <= 25

    def test_functions_of_one_module_are_in_one_split(self):
        modules = {
            name: {example.partition(":")[0] for example in split.example_ids.tolist()}
            for name, split in self.data().splits.items()
        }
        assert sum(map(len, modules.values())) == len(set.union(*modules.values()))


@pytest.mark.assets
class TestStrings(LanguageConformance):
    def make_task(self):
        sizes = {"train": 60, "tune": 20, "decide": 30, "test": 30}
        return StringsTask(sizes=sizes, max_length=2000, generate="exact_match")

    def test_a_row_asks_for_a_translation(self):
        split = self.data().splits["test"]
        assert all("Translate into French: " in prompt for prompt in split.prompt_texts)
        assert any(not reference.isascii() for reference in split.references)


def test_files_that_are_no_python_are_passed_over(tmp_path, monkeypatch):
    (tmp_path / "good.py").write_text('def f(a):\n    """Add one."""\n    return a + 1\n')
    (tmp_path / "broken.py").write_text("def f(:\n")
    (tmp_path / "bytes.py").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "more.py").write_text('def g(a):\n    """Add two."""\n    return a + 2\n')
    monkeypatch.setattr(code.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    said = []
    reading = CodeTask().read(said.append, has_template=False)
    (row,) = reading.rows
    assert row.content.before == 'def f(a):\n    """Add one."""\n'
    assert row.content.answer == "    return a + 1\n"
    assert said == ["functions read from Python's standard library: 1, in 1 modules"]
    (tmp_path / "good.py").unlink()
    with pytest.raises(TaskError, match="has no source files that could be read"):
        CodeTask().read(said.append, has_template=False)


@pytest.mark.parametrize(
    ("completion", "parses", "matches"),
    [
        ("    return a + 1\n", 1, 1),
        ("    return (a+1)  # one more\n\n", 1, 1),
        ("    return a + 2\n", 1, 0),
        ("    return (a +\n", 0, 0),
        ("\0", 0, 0),
        ("    return " + "(" * 5000 + "a" + ")" * 5000, 0, 0),
        ("    return 'a\\d'\n", 1, 0),
        ("", 1, 0),
    ],
)
@pytest.mark.filterwarnings("error")
def test_code_is_parsed_and_compared(completion, parses, matches):
    prompt = 'def f(a):\n    """Add one."""\n'
    found = [
        scorer.score(prompt, completion, "    return a + 1\n") for scorer in find_scorers(["code_parses", "code_match"])
    ]
    assert found == [parses, matches]


def test_code_is_never_run(tmp_path):
    (scorer,) = find_scorers(["code_match"])
    victim = tmp_path / "victim"
    body = f"    open({json.dumps(str(victim))}, 'w')\n\nopen({json.dumps(str(victim))}, 'w')\n"
    assert scorer.score("def f():\n", body, body) == 1
    assert not victim.exists()


def test_rates_are_those_of_a_language_model():
    for task in ("sft", "code", "strings"):
        assert make_task({"name": task, **({"path": "x"} if task == "sft" else {})}).learning_rates == (
            3e-4,
            1e-3,
            3e-3,
        )


@pytest.mark.thorough
@pytest.mark.slow
def test_rows_are_cut_where_they_are_long_and_that_is_said():
    said = []
    sizes = {"train": 40, "tune": 20, "decide": 20, "test": 20}
    data = CodeTask(sizes=sizes, max_length=300).load(Words(288), said.append)
    assert max(split.sizes.max() for split in data.splits.values()) <= 300
    assert any("cut at the end" in line for line in said)
    assert np.all([split.sizes.min() > 0 for split in data.splits.values()])


@pytest.mark.slow
def test_rows_to_retain_that_are_trained_on_are_counted(rows, tmp_path):
    said, other = [], tmp_path / "other.jsonl"
    other.write_text('{"question": "Who?", "answer": "Nobody."}\n{"question": "", "answer": ""}\n')
    for path in (rows, other):
        data = SftTask(path=str(rows), retain=str(path)).load(Words(288), said.append)
        if path == rows:
            assert f"warning: {len(data.splits['train'])} of them are trained on too" in "\n".join(said)
            assert len(data.retained) == 240
            said.clear()
    assert len(data.retained) == 1
    assert not any("trained on too" in line for line in said)
    assert any(line.startswith("1 rows of it are scored; left out are 1 ") for line in said), said
    assert data.fingerprint != SftTask(path=str(rows)).load(Words(288), said.append).fingerprint
