"""The command line: help, configuration, and one sentence for whatever is wrong."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from functools import reduce
from importlib.metadata import EntryPoint
from operator import getitem
from pathlib import Path

import pytest
from thorough import later
from tiny import OPTIONS, write_texts

from rankexp.allocators.base import make_allocator
from rankexp.cli import option_docs
from rankexp.cli.command import commands
from rankexp.cli.compose import resource, run_with_hydra, sweep_names
from rankexp.cli.main import main
from rankexp.cli.option_docs import option_groups
from rankexp.cli.resources import default_choice
from rankexp.config import StudyConfig
from rankexp.options import parse
from rankexp.strategies.base import make_strategy

GOLDEN = Path(__file__).parents[1] / "golden" / "help"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(arguments)
    said = capsys.readouterr().err
    assert "Traceback" not in said
    lines = [line for line in said.splitlines() if line.startswith("rankexp: ")]
    assert len(lines) == 1, said
    return code, lines[0]


@pytest.mark.parametrize("name", ["rankexp", *commands()])
def test_help_golden(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"] if name == "rankexp" else [name, "--help"])
    assert left.value.code == 0
    text, golden = capsys.readouterr().out, GOLDEN / f"{name}.txt"
    if os.environ.get("RANKEXP_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("columns", [40, 80, 120, 300])
def test_pages_fit_the_terminal(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit):
        main(["sweep", "--help"])
    longest = max(map(len, capsys.readouterr().out.splitlines()))
    assert min(columns, 80) <= longest + 5
    assert longest <= max(80, min(columns, 120))


@pytest.mark.slow
@pytest.mark.parametrize("command", ["sweep", "train"])
def test_each_option_has_a_sentence_and_its_default(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What the help says an option is by default is what is composed, where nothing else is chosen."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    assert main([command, "--cfg", "job"]) == 0
    composed = OmegaConf.to_container(OmegaConf.create(capsys.readouterr().out), resolve=True)
    assert isinstance(composed, dict)
    values = parse(StudyConfig, {str(name): value for name, value in composed.items()}).to_dict()
    chosen = {
        "study",
        "decide.seeds",
        "decide.margin",
        "decide.score",
        "search.learning_rates",
        *(name for name in values if isinstance(values[name], dict)),
    }
    options = [(group, option) for group in option_groups(commands()[command].overrides) for option in group.options]
    assert len(options) > 40
    assert [option.name for _, option in options if not option.sentence] == []
    for group, option in options:
        elsewhere = re.search(r"with (\w+)=(\w+)$", group.heading)
        if option.name not in chosen and (elsewhere is None or default_choice(elsewhere[1]) == elsewhere[2]):
            read = OverridesParser.create().parse_override(option.label).value()
            found = reduce(getitem, option.name.split("."), values)
            assert read == found, option.name


@pytest.mark.slow
@pytest.mark.parametrize("name", sweep_names())
def test_every_sweep_composes_and_is_valid(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    from omegaconf import OmegaConf

    assert main(["sweep", name, "--cfg", "job"]) == 0
    values = OmegaConf.to_container(OmegaConf.create(capsys.readouterr().out), resolve=True)
    assert isinstance(values, dict)
    config = parse(StudyConfig, {str(k): v for k, v in values.items()})
    assert config.study.startswith(name)
    assert len(config.search.ranks) >= 2
    for contender, options in config.contest.contenders.items():
        assert make_strategy(options, contender)
        assert make_allocator(options["allocator"]) if "allocator" in options else True


@pytest.mark.slow
@pytest.mark.parametrize(
    "choice",
    [
        one if p.parent.name in {"task", "model", "search"} else later(one)
        for p in sorted(resource("conf").glob("*/*.yaml"))
        for one in [f"{p.parent.name}={p.stem}"]
    ],
)
def test_every_choice_of_every_group_composes(choice: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", choice, "--cfg", "job"]) == 0
    group, name = choice.split("=")
    assert f"{group}:" in capsys.readouterr().out
    assert (resource("conf") / group / f"{name}.yaml").is_file()


def test_the_sweeps_are_these() -> None:
    assert sweep_names() == [
        *(
            "adalora",
            "alpha_scaling",
            "auto",
            "code",
            "gp",
            "images",
            "lora_vs_full",
            "nested",
            "pareto",
            "patterns",
            "per_layer",
        ),
        *("per_layer_search", "rank_alpha", "rank_grid", "rank_vs_data", "rank_vs_data_sft", "rule_of_thumb", "sft"),
        *("sft_grid", "strategies", "target_modules", "translation", "variants"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        later(["sweep", "contest.contenders.x={strategy: grid}"], "write '+contest.contenders.x=…' to add one."),
        (["sweep", "train.setps=3"], "unknown option 'train.setps'; did you mean 'train.steps'?"),
        later(["sweep", "rank_gird"], "there is no sweep 'rank_gird'; did you mean 'rank_grid'?"),
        (
            ["sweep", "model=minilmm"],
            "there is no 'minilmm' in group 'model'; there is digits_resnet, digits_vit, local, minilm, smollm2, strings_t5, tiny, tiny_llama, tiny_t5, tiny_vit.",
        ),
        (["sweep", "task=csv"], "option 'task.path' is missing"),
        later(["sweep", "search.ranks=[4,-4]"], "'search.ranks.1' is -4: should be greater than 0."),
        (["sweep", "search.ranks=[3.5]"], "'search.ranks.0' is 3.5: must be a whole number."),
        later(["sweep", "search.ranks=[0,4]"], "'search.ranks.0' is 0: should be greater than 0."),
        (["sweep", "search.ranks=[4,4]"], "lists 4 twice"),
        later(["sweep", "search.ranks=[]"], "at least one"),
        (["sweep", "search.ranks=four"], "'search.ranks'"),
        later(["sweep", "lora.alpha=0"], "'lora.alpha' is 0: should be greater than 0."),
        (["sweep", "search.learning_rates=[0]"], "'search.learning_rates.0' is 0: should be greater than 0."),
        later(["sweep", "search.learning_rates=[-1e-3]"], "should be greater than 0."),
        (["sweep", "study=../../x"], "'study' is '../../x'"),
        later(["sweep", "study=/etc/x"], "'study' is '/etc/x'"),
        (["sweep", f"study={'x' * 600}"], "at most 100"),
        later(["sweep", "search.seed=0"], "search.seed 0 is one of decide.seeds"),
        (["sweep", "device=cuda:7"], "there is cpu"),
        later(["sweep", "+model._target_=os.system"], "'model._target_' is refused"),
        (["sweep", "--multirun"], "takes no --multirun"),
        later(["sweep", "task=csv", "task.path=nothing.csv"], "nothing.csv"),
        (["sweep", "task=csv", "task.path=texts.csv", "task.text=body"], "has no column 'body'"),
        later(["sweep", *OPTIONS, "task.path=texts.csv", "search.ranks=[2,64]"], "rank 64 exceeds 32"),
        (["sweep", *OPTIONS, "task.path=texts.csv", "lora.target_modules=[querry]"], "querry"),
        (
            ["sweep", *OPTIONS, "task.path=texts.csv", "task.pth=x"],
            "unknown option 'task.pth'; did you mean 'task.path'?",
        ),
        later(["sweep", *OPTIONS, "task.path=texts.csv", "task.sizes.test=5000"], "too few"),
        (["train", "trial.rank=-1"], "'trial.rank' is -1"),
        later(["report", "nothing"], "there is no study 'nothing' in runs"),
        (["status", "nothing"], "there is no study 'nothing' in runs"),
        later(["assets", "more"], "unknown argument 'more'"),
        (["sweep", "model=local", "model.path=nowhere/at-all/there"], "nowhere/at-all/there"),
    ],
)
def test_bad_input_gets_one_sentence_and_exit_2(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_texts(Path("texts.csv"), 200)
    code, said = complaint(capsys, *arguments)
    assert code == 2, said
    assert expected in said
    assert not list(Path().glob("runs/trials/*")), "nothing may be trained"


def test_a_new_command_is_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import rankexp.cli.commands as package

    (tmp_path / "greet.py").write_text(
        "from rankexp.cli.command import Command, Section\n"
        "COMMAND = Command(Section.READ, 'say hello', lambda options, rest: print('hello', *rest) or 0)\n"
    )
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    assert main(["greet", "workspace=x"]) == 0
    assert capsys.readouterr().out == "hello workspace=x\n"
    for words in (["--help"], ["greet", "--help"]):
        with pytest.raises(SystemExit):
            main(words)
    assert "  greet         say hello\n" in (said := capsys.readouterr().out)
    assert "Say hello." in said


def test_a_task_that_cannot_be_loaded_is_left_out_of_the_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = EntryPoint("broken", "nowhere.to.be:Found", "rankexp.tasks")
    monkeypatch.setattr(option_docs, "entry_points", lambda group: [broken])
    with pytest.raises(SystemExit):
        main(["sweep", "--help"])
    assert "broken" not in capsys.readouterr().out


def test_no_command_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "rankexp sweep" in capsys.readouterr().out


def test_cfg_with_multirun_prints_the_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--multirun", "--cfg", "job", "trial.rank=4"]) == 0
    assert "rank: 4" in capsys.readouterr().out


@pytest.mark.slow
def test_a_multirun_leaves_nothing_in_the_current_folder(capsys: pytest.CaptureFixture[str]) -> None:
    run: list[int] = []
    run_with_hydra("config", ["--multirun", "trial.rank=4,8"], lambda config: run.append(config.trial.rank))
    assert run == [4, 8]
    assert not list(Path().iterdir())
    kept = Path("notes")
    run_with_hydra("config", ["--multirun", "trial.rank=4,8", f"hydra.sweep.dir={kept}"], lambda _: None)
    assert [path.name for path in kept.iterdir()] == ["multirun.yaml"]


@pytest.mark.slow
def test_a_sweep_of_ones_own_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    text = "defaults:\n  - config\n  - _self_\nstudy: my_sweep\nsearch:\n  ranks: [2, 3]\n"
    (tmp_path / "mine" / "my_sweep.yaml").write_text(text, encoding="utf-8")
    assert main(["sweep", "my_sweep", "--config-dir", str(tmp_path / "mine"), "--cfg", "job"]) == 0
    assert "study: my_sweep" in capsys.readouterr().out


@pytest.mark.slow
def test_train_status_and_multirun(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_texts(Path("texts.csv"), 300)
    options = [*OPTIONS, "task.path=texts.csv", "train.steps=5", "trial.learning_rate=3e-3"]
    assert main(["train", *options, "trial.rank=2"]) == 0
    said = capsys.readouterr().out
    assert "decide accuracy" in said
    assert (Path("runs/trials") / said.split()[0] / "adapter" / "adapter_config.json").is_file()
    assert main(["train", "--multirun", *options, "trial.rank=2,4", "trial.seed=0,1"]) == 0
    assert {path.name for path in Path().iterdir()} == {"runs", "texts.csv"}
    assert len(list(Path("runs/trials").iterdir())) == 4
    assert main(["status", "train"]) == 0
    assert "4 completed" in capsys.readouterr().out


@pytest.mark.slow
def test_a_model_is_inspected_without_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "model=tiny_llama", "task=sft", "search.ranks=[2,64]"]) == 0
    said = capsys.readouterr().out
    assert "adapted: 14 layers" in said
    assert "lm_head: the output layer" in said
    code, wrong = complaint(capsys, "inspect", "model=tiny_llama", "task=sft", "lora.target_modules=[qurry]")
    assert (code, "'qurry' matches no layer" in wrong) == (2, True)
    assert not list(Path().iterdir())


@pytest.mark.slow
def test_a_dry_run_says_what_a_sweep_would_do_and_leaves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [json.dumps({"question": f"{i}+1?", "answer": str(i + 1)}) for i in range(200)]
    Path("sums.jsonl").write_text("\n".join(rows))
    words = ["model=tiny_llama", "task=sft", "task.path=sums.jsonl", "search.ranks=[2,4]", "device=cpu"]
    assert main(["sweep", "--dry-run", *words, "search.learning_rates=[1e-3,1e-2]"]) == 0
    said = capsys.readouterr().out
    assert "train 100, tune 20, decide 40, test 40 examples" in said
    assert "12: screen 4, references 2, decision 6" in said
    assert "2% of the gain on tune" in said
    assert [path.name for path in Path().iterdir()] == ["sums.jsonl"]
    code, wrong = complaint(capsys, "sweep", "--dry-run", *words, "decide.seeds=2")
    assert (code, "a verdict takes at least 3" in wrong) == (2, True)
