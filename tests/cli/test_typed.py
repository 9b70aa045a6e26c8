"""Words as people type them: paths of any characters, huge numbers, and what Hydra's grammar cannot read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from thorough import later
from tiny import OPTIONS

from rankexp.cli.compose import run_with_hydra
from rankexp.cli.main import main
from rankexp.cli.outcome import where
from rankexp.cli.settings import workspace_of
from rankexp.cli.typed import quoted, read_typed
from rankexp.config import StudyConfig
from rankexp.option_errors import ConfigError

pytestmark = pytest.mark.slow

NAMES = [
    "a=b.csv", "größe.csv", "x (1).csv", "x [1].csv", "[1,2].csv", "{a: b}.csv", "a,b.csv", "it's.csv", 'say "hi".csv',
    "a$b.csv", "a${b.csv", "50%.csv", "back\\slash.csv", "end\\", "-x.csv", "a:b.csv", "a?b*.csv", "1e3", "007", "true",
    "#1.csv", " led.csv", "str(a).csv", "choice(a,b)", "a;b&c|d.csv", "日本語.csv", "a\u00a0b.csv", "_target_.csv", "@x",
    "oc.decode", "it's \\'so\\'.csv", "~user-that-is-nobody/x.csv", "range(1,3)", "a==b", "x(1)y",
]  # fmt: skip


def composed(*words: str) -> StudyConfig:
    found: list[StudyConfig] = []
    run_with_hydra("rank_grid", ["model=local", "task=csv", "model.path=m", "task.path=x.csv", *words], found.append)
    (config,) = found
    return config


@pytest.mark.parametrize("first", range(0, len(NAMES), 4))
def test_a_path_is_what_was_typed(first: int) -> None:
    data, model, workspace, column = (NAMES[i % len(NAMES)] for i in range(first, first + 4))
    config = composed(f"task.path={data}", f"model.path={model}", f"workspace={workspace}", f"task.text={column}")
    assert (config.task["path"], config.task["text"]) == (data, column)
    assert (config.model.path, config.model.name, str(config.workspace)) == (model, model, workspace)


@pytest.mark.parametrize("name", NAMES)
def test_a_workspace_is_where_it_was_typed(name: str) -> None:
    assert str(workspace_of([f"workspace={name}"])) == name


@settings(max_examples=60, deadline=None)
@given(some.text(some.sampled_from("ab'\"\\${}[](),:= ~%#ü."), min_size=1, max_size=12))
def test_any_path_is_what_was_typed(name: str) -> None:
    def read(word: str) -> object:
        from hydra.core.override_parser.overrides_parser import OverridesParser
        from omegaconf import OmegaConf

        value = OverridesParser.create().parse_override(read_typed([word]).overrides[0]).value()
        return OmegaConf.create({"a": value})["a"]

    assert read(f"++other.text={quoted(name)}") == name
    if not (name[0] in "'\"" or "${" in name):
        assert read(f"task.path={name}") == name


def test_hydras_own_words_are_hydras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERE", "here")
    assert composed("task.path='x (1).csv'").task["path"] == "x (1).csv"
    assert composed('task.path="it\'s"').task["path"] == "it's"
    assert str(composed("workspace=${oc.env:WHERE}/runs").workspace) == "here/runs"
    assert composed("storage=null", "task.group=null").task["group"] is None
    assert workspace_of(["workspace='x (1)'"]) == Path("x (1)")
    found: list[StudyConfig] = []
    run_with_hydra("config", ["study=train", "--multirun", "task=csv", "task.path=a.csv,b.csv"], found.append)
    assert [config.task["path"] for config in found] == ["a.csv", "b.csv"]


def test_an_address_needs_no_quotes_of_hydras() -> None:
    url = "postgresql://rankexp@db.example/rankexp?sslmode=require&a=b"
    assert composed(f"storage={url}").storage == url


def test_a_tilde_is_the_users_folder() -> None:
    home = os.path.expanduser("~")
    config = composed("model.path=~/m", "workspace=~/runs")
    assert (config.model.path, str(config.workspace)) == (f"{home}/m", f"{home}/runs")
    assert str(workspace_of(["workspace=~/runs"])) == f"{home}/runs"


@pytest.mark.parametrize("option", ["workspace", "task.path", "model.path"])
@pytest.mark.parametrize("sign", ["\n", "\x1b", "\r", "\x9b"])
def test_control_characters_are_no_part_of_a_name(option: str, sign: str, one_sentence) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match="control character") as refused:
        composed(f"{option}=a{sign}b")
    assert sign not in one_sentence(refused.value)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        later("+@contest.contenders.a=b", "names no option"),
        later("--helf", "unrecognized arguments: --helf"),
        ("--cfg=" + "9" * 5000, "invalid choice"),
        later("--config-dir=" + "x" * 5000, "there is no folder"),
        later("study=a(b", "'study' cannot be read; quote a text for Hydra: "),
        ("lora.target_modules=[a", "'lora.target_modules' cannot be read"),
        later("decide.seeds=" + "[" * 5000, "nested 5000 deep"),
        later("lora.target_modules=" + "{a:" * 60 + "1" + "}" * 60, "nested 60 deep"),
        ("study=" + "x" * 10_000_000, "10000006 characters"),
        later("trial.seed=" + "9" * 5000, "'trial.seed'"),
        later("x" * 5000 + "=1", "unknown option"),
        ("model=" + "x" * 5000, "there is no"),
        later("study=${nope}", "nope"),
        later("study=${study}", "study"),
        ("study=${oc.env:RANKEXP_NOT_THERE}", "RANKEXP_NOT_THERE"),
        later("workspace=${oc.decode:x}", "code to run"),
        later("decide.seeds=1000000000", "at most 10000 seeds"),
        ("decide.seeds=" + "9" * 40, "at most 10000 seeds"),
        later("search.trials=1000000000", "'search.trials'"),
        later("contest.trials=1000000000", "'contest.trials'"),
        ("jobs=1000000000", "'jobs'"),
        later("threads=1000000000", "'threads'"),
        later("workers=1000000", "'workers'"),
        ("train.steps=1000000000000000000", "'train.steps'"),
        later("search.steps=1000000000000000000", "'search.steps'"),
        later("train.batch_size=1000000000000", "'train.batch_size'"),
        ("search.ranks=[1000000000000000000000000000000]", "'search.ranks.0'"),
        later("search.widen=1000000000", "'search.widen'"),
        later("trial.seed=9223372036854775808", "'trial.seed'"),
        ("model.seed=9223372036854775808", "'model.seed'"),
        later("decide.seeds=[0,1,9223372036854775808]", "'decide.seeds.2'"),
        later("lease_seconds=1e12", "'lease_seconds'"),
        ("lease_seconds=inf", "'lease_seconds'"),
        later("lease_seconds=1e-9", "'lease_seconds'"),
        later("lease_seconds=nan", "'lease_seconds'"),
        ("checkpoint_every=" + "9" * 30, "'checkpoint_every'"),
        later("device=cuda:" + "9" * 30, "device"),
    ],
    ids=lambda value: value[:40],
)
def test_what_cannot_be(
    word: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    one_sentence,
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.csv").write_text("text,label\na,b\n", encoding="utf-8")
    assert main(["sweep", "task=csv", "task.path=x.csv", "model=tiny", word]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in one_sentence(line)
    assert len(line) < 6000


@pytest.mark.parametrize(
    "word", ["lease_seconds=1", "lease_seconds=0.5", "lease_seconds=86400", "decide.seeds=100", "jobs=64"]
)
def test_what_can_be(word: str) -> None:
    assert composed(word)


def test_printed_commands_can_be_pasted() -> None:
    assert where(Path("runs")) == ""
    assert where(Path("my runs (1)")) == " 'workspace=my runs (1)'"


def test_passwords_are_not_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "nothing", "storage=postgresql://me:sesame@db/x"]) == 2
    assert main(["sweep", "studdy=postgresql://me:sesame@db/x?password=sesame"]) == 2
    assert main(["status", "postgresql://me:sesame@db/x?password=sesame&token=sesame"]) == 2
    assert "sesame" not in "".join(capsys.readouterr())


def test_an_argument_that_is_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "task.path=caf\udce9.csv", *OPTIONS]) == 2
    assert "is not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize(
    "pattern", ["#### (.+)", r"answer:\s*([A-D])", "(even|odd)", r"\{(\d{1,3}), x=y\}", "a b", "$"]
)
def test_a_pattern_is_taken_as_it_stands(pattern):
    config = composed("task=sft", "task.path=rows.jsonl", "task.generate=exact_match", f"task.answer={pattern}")
    assert config.task["answer"] == pattern
