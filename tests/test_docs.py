"""The documentation against the code: its Python runs, its commands are accepted, its links lead somewhere."""

import doctest
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
from fake_study import make_study

from rankexp.cli.arguments import parser
from rankexp.cli.command import commands as commands_of
from rankexp.cli.main import main
from rankexp.config import OF_WORKER
from rankexp.testing import AllocatorConformance, ClassificationConformance, StrategyConformance, TaskConformance

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGE_OF = {page.name: page for page in PAGES}
FENCE = re.compile(
    r"^(?:<!-- not run: (?P<reason>\S[^\n]*?) -->\n\s*)?^```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^```$", re.M | re.S
)
SHELL = {"bash", "sh", "shell", "console"}
SUITES = (TaskConformance, ClassificationConformance, AllocatorConformance, StrategyConformance)
ASSIGNMENT = re.compile(r"[A-Z_]+=.*")


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str
    reason: str | None


def blocks(page):
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        line = text.count("\n", 0, found.start("text")) + 1
        yield Block(page, line, found["language"], found["text"], found["reason"])


def commands(page):
    """Shell lines of a page with their place, continued lines joined and prompts dropped."""
    for block in blocks(page):
        if block.language in SHELL:
            for number, line in enumerate(block.text.replace("\\\n", " ").splitlines()):
                words = shlex.split(line.removeprefix("$ "), comments=True)
                while words and ASSIGNMENT.fullmatch(words[0]):
                    words = words[1:]
                if words:
                    yield f"{page.name}:{block.line + number}", words


COMMANDS = [found for page in PAGES for found in commands(page)]
RANKEXP = [(place, words[1:]) for place, words in COMMANDS if Path(words[0]).name == "rankexp"]
MAKE = [(place, words[1:]) for place, words in COMMANDS if words[0] == "make"]
RANKEXP += [
    (place, ["sweep", *shlex.split(word.removeprefix("ARGS="))])
    for place, words in MAKE
    if words[0] == "sweep"
    for word in words
    if word.startswith("ARGS=")
]


def by_place(found):
    return {"argvalues": found, "ids": [place for place, _ in found]}


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_python_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    found = [block for block in blocks(page) if block.language == "python" and block.reason is None]
    if any("runs/" in block.text for block in found):
        make_study(Path("runs"), name="rank_grid-01234567", examples=200)
    module = ModuleType(f"page_{page.stem}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for block in found:
        if block.text.lstrip().startswith(">>>"):
            check_examples(block, module)
        else:
            code = compile("\n" * (block.line - 1) + block.text, str(block.page), "exec", dont_inherit=True)
            exec(code, module.__dict__)
    check_laws(module)
    capsys.readouterr()


def check_laws(module):
    """Run the conformance suites that a page defines."""
    for kind in vars(module).values():
        if isinstance(kind, type) and issubclass(kind, SUITES) and kind not in SUITES:
            for law in [name for name in dir(kind) if name.startswith("test_")]:
                getattr(kind(), law)()


def check_examples(block, module):
    test = doctest.DocTestParser().get_doctest(block.text, module.__dict__, block.page.name, None, block.line)
    test.globs = module.__dict__
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, clear_globs=False)
    assert result.failed == 0, f"{block.page.name}:{block.line}"


@pytest.mark.slow
@pytest.mark.parametrize(("place", "words"), **by_place(RANKEXP))
def test_a_command_is_accepted(place, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    written = write_configurations(words, PAGE_OF[place.partition(":")[0]])
    if {"--help", "--version"} & set(words):
        assert "rankexp" in output_of(words, capsys)
    elif words[0] in {"sweep", "train"}:
        shown = words if "--cfg" in words else [*first_of_each(words), "--cfg", "job"]
        assert "workspace:" in output_of(shown, capsys)
    else:
        options, rest = parser().parse_known_args(words)
        assert hasattr(options, "run")
        allowed = {"workspace", *(OF_WORKER if words[0] == "worker" else ())}
        parts = commands_of(words[0])[words[0]].overrides
        assert all(word.partition("=")[0] in allowed or word.partition("=")[0].split(".")[0] in parts for word in rest)
    assert {path.name for path in tmp_path.iterdir()} <= written


def write_configurations(words, page):
    """Write the YAML blocks of a page that begin with a path below the folder that ``--config-dir`` names."""
    folders = set(words[words.index("--config-dir") + 1 :][:1]) if "--config-dir" in words else set()
    for block in blocks(page):
        path = Path(block.text.partition("\n")[0].removeprefix("# "))
        if block.language == "yaml" and path.parts[0] in folders:
            path.parent.mkdir(parents=True)
            path.write_text(block.text, encoding="utf-8")
    return folders


def first_of_each(words):
    """Take the first value of each list that ``--multirun`` goes through; ``--cfg`` shows one job."""
    if not {"--multirun", "-m"} & set(words):
        return words
    return [re.sub(r"^([^=\[]+=[^,\[\]]+),.*", r"\1", word) for word in words]


def output_of(words, capsys):
    try:
        code = main(words)
    except SystemExit as error:  # argparse leaves after --help
        code = error.code
    shown = capsys.readouterr()
    assert code == 0, shown.err
    return shown.out


@pytest.mark.parametrize(("place", "words"), **by_place(MAKE))
def test_a_make_target_exists(place, words):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert {word for word in words if "=" not in word} <= targets


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_relative_links_lead_to_files(page):
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    prose = re.sub(r"`[^`\n]*`", "", prose)
    targets = re.findall(r"\]\(<?([^)\s>]+)", prose)
    relative = [target.partition("#")[0] for target in targets if not re.match(r"[a-z]+:|#", target)]
    assert [target for target in relative if not (page.parent / target).exists()] == []


def test_blocks_and_commands_are_found():
    assert len(RANKEXP) >= 10
    assert sum(block.language == "python" for page in PAGES for block in blocks(page)) >= 3
    assert all(block.language for page in PAGES for block in blocks(page)), "every block names its language"
