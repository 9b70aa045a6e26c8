"""The shape of the code: who imports whom, read from the source, and what the command line loads."""

import ast
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pytest

import rankexp

ROOT = Path(rankexp.__file__).parent
HEAVY = {"torch", "mlflow", "transformers", "matplotlib", "optuna"}
LAYERS = (
    {
        "canonical_json",
        "candidates",
        "metrics",
        "corpus_metrics",
        "ranks",
        "trial_spec",
        "options",
        "option_errors",
        "assets",
        "progress",
        "margins",
        "peft_patterns",
        "safety",
        "record",
        "data",
    },
    {"config", "models", "lora", "allocators", "tasks", "objectives", "scorers"},
    {"analysis"},
    {"__init__"},
    {"strategies", "training", "report", "tracking"},
    {"study", "testing"},
    {"export"},
    {"cli"},
    {"__main__"},
)
"""From the ground up; a module imports from its own part of the package and from lower layers only."""


class Import(NamedTuple):
    """One import of a module, ``TYPE_CHECKING`` aside."""

    name: str
    when_loaded: bool


def module_name(path):
    parts = [ROOT.name, *path.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def part(module):
    """``rankexp.study.execution.runner`` is of the part ``study``, ``rankexp`` itself of ``__init__``."""
    return [*module.split("."), "__init__"][1]


def layer(module):
    found = [number for number, parts in enumerate(LAYERS) if part(module) in parts]
    assert found, f"{module} has no place in LAYERS: say where it belongs"
    return found[0]


def imported(statement):
    """Full names: a name imported from a package is a module of it, or the package's own."""
    if isinstance(statement, ast.Import):
        return [alias.name for alias in statement.names]
    assert not statement.level, "imports are absolute"
    inner = [f"{statement.module}.{alias.name}" for alias in statement.names]
    return list(dict.fromkeys(name if name in SOURCES else statement.module for name in inner))


def statements(node, when_loaded=True):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield from (Import(name, when_loaded) for name in imported(child))
        else:
            is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from statements(child, when_loaded and not is_function)


@cache
def imports(module):
    return tuple(statements(ast.parse(SOURCES[module].read_text(encoding="utf-8"))))


def own(module):
    return {found.name for found in imports(module) if found.name in SOURCES} - {module}


def users(*packages):
    return {m for m in SOURCES for found in imports(m) if found.name.split(".")[0] in packages}


def reachable(modules):
    seen, waiting = set(), list(modules)
    while waiting:
        if (module := waiting.pop()) not in seen:
            seen.add(module)
            waiting += own(module)
    return seen


def of(*parts):
    return [module for module in SOURCES if part(module) in parts]


def test_the_source_is_read():
    assert Import("rankexp.ranks", True) in imports("rankexp.trial_spec")
    assert Import("optuna", True) in imports("rankexp.study.search.stored")
    assert Import("rankexp.study.search.stored", False) in imports("rankexp.study.search.sampled")
    assert "rankexp.config" in reachable(["rankexp.cli.compose"])


@pytest.mark.slow
@pytest.mark.parametrize(("packages", "home"), [
    (("hydra", "omegaconf"), "rankexp.cli"),
    (("optuna",), "rankexp.study.search"),
    (("mlflow",), "rankexp.tracking"),
])  # fmt: skip
def test_a_framework_has_one_home(packages, home):
    found = users(*packages)
    assert found
    assert all(f"{module}.".startswith(f"{home}.") for module in found), found


def test_peft_is_not_needed():
    assert users("peft") == {"rankexp.export.with_peft", "rankexp.export.composed"}  # which say so where it is missing
    assert not any(found.when_loaded for found in imports("rankexp.export.with_peft") if found.name == "peft")


def test_imports_run_downwards():
    upwards = [
        f"{module} -> {name}"
        for module in SOURCES
        for name in own(module)
        if part(name) != part(module) and layer(name) >= layer(module) and not allowed_beside(module, name)
    ]
    assert upwards == []


def allowed_beside(module, name):
    """Inside the lowest two layers some modules stand on each other; the cycle test keeps that in order."""
    return layer(module) == layer(name) <= 1


def test_no_module_imports_itself_in_a_circle():
    for module in SOURCES:
        assert module not in reachable(own(module)), f"{module} is part of a cycle"


@pytest.mark.parametrize("name", ["analysis", "report"])
def test_results_are_read_without_torch(name):
    needed = reachable(of(name))
    assert not needed & (users("torch", "transformers") | set(of("training", "lora", "models", "study", "cli")))


@pytest.mark.parametrize("name", ["tasks", "models", "training", "lora"])
def test_the_engine_takes_values_and_no_configuration(name):
    assert not reachable(of(name)) & set(of("study", "cli", "config"))


@pytest.mark.parametrize("module", [m for m in SOURCES if part(m) in {"cli", "__init__"}])
def test_heavy_packages_are_imported_late(module):
    now = {found.name.split(".")[0] for found in imports(module) if found.when_loaded}
    assert not now & HEAVY


def test_the_command_line_loads_nothing_heavy():
    code = "import sys, rankexp.cli.main; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(done.stdout.split())
    assert "rankexp" in loaded
    assert not loaded & {"torch", "pandas", "hydra", "mlflow", "pydantic", *HEAVY}


def test_every_layer_is_there():
    assert set(chain.from_iterable(LAYERS)) == {part(module) for module in SOURCES}


@pytest.mark.parametrize("room", ["study", "analysis", "report", "tracking"])
def test_what_a_task_is_scored_by_is_named_nowhere_else(room):
    """Objectives and tasks say it; the rest reads what the metric says of itself."""
    words = re.compile(r"\b(accurac(y|ies)|labels|logits|tokens|input_ids|AutoModel\w*)\b", re.IGNORECASE)
    drawing = re.compile(r"get_legend_handles_labels|axes\.|labels=|with_labels")  # matplotlib's word
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sorted((ROOT / room).rglob("*"))
        if path.suffix in {".py", ".j2"}
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if words.search(line) and not drawing.search(line)
    ]
    assert found == []


@pytest.mark.slow
def test_files_functions_and_rooms_are_small():
    """What a person can read at once."""
    long = {module: count for module, path in SOURCES.items() if (count := len(path.read_text().splitlines())) > 320}
    assert long == {}
    functions = {
        f"{module}.{node.name}": node.end_lineno - node.lineno + 1
        for module, path in SOURCES.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: lines for name, lines in functions.items() if lines > 50} == {}
    rooms = Counter(path.parent for path in (ROOT / "study").rglob("*.py") if path.stem != "__init__")
    assert max(rooms.values()) <= 8
