"""The tab key, in a bash as people use it; and what is never offered, whatever names lie about."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_study import make_study
from thorough import later

import rankexp
from rankexp.cli.command import commands
from rankexp.cli.completion import option_words, paths, shell_code, studies
from rankexp.cli.main import main

ROOT = Path(rankexp.__file__).parents[1]
BASH = """
PS1='$ '; PS2='> '; unset HISTFILE PROMPT_COMMAND
bind 'set bell-style none'; bind 'set show-all-if-ambiguous on'; bind 'set completion-query-items 0'
bind 'set page-completions off'; bind 'set enable-bracketed-paste off'; bind 'set colored-stats off'
bind -x '"\\C-o": printf "\\n<%s>\\n" "$READLINE_LINE"'
eval "$(rankexp completion bash)"
"""
ZSH = """
PS1='$ '; unset HISTFILE zle_bracketed_paste; setopt no_beep no_prompt_sp; LISTMAX=1000
autoload -U compinit; compinit -u -D
show() { printf '\\r\\n<%s>\\r\\n' "$BUFFER" }
zle -N show; bindkey -e; bindkey '^O' show
eval "$(rankexp completion zsh)"
"""


class Shell:
    """A shell in a terminal.

    Args:
        name: Its name.
        here: The folder that it is in; ``bin/`` beside it holds the command.
    """

    def __init__(self, name: str, here: Path) -> None:
        import pexpect

        found = shutil.which(name)
        if found is None:
            pytest.skip(f"{name} is not here")
        folder = here.parent / "bin"
        folder.mkdir()
        (folder / "rankexp").write_text(f'#!/bin/sh\nexec {sys.executable} -P -m rankexp "$@"\n')
        (folder / "rankexp").chmod(0o755)
        (folder / ".zshrc").write_text(ZSH)
        (folder / "started").write_text(BASH)
        flags = ["--noprofile", "--rcfile", str(folder / "started"), "-i"] if name == "bash" else ["-d", "-i"]
        own = {"PATH": f"{folder}:{os.environ['PATH']}", "TERM": "dumb", "PYTHONPATH": str(ROOT),
               "INPUTRC": os.devnull, "ZDOTDIR": str(folder)}  # fmt: skip
        self.child = pexpect.spawn(
            found, flags, cwd=str(here), env={**os.environ, **own}, encoding="utf-8", timeout=60, dimensions=(200, 1000)
        )
        self.child.expect_exact("$ ")

    def completed(self, typed: str) -> str:
        """Return what the line is after the tab key."""
        return self.offered(typed)[0]

    def offered(self, typed: str) -> tuple[str, list[str]]:
        """Return what the line is after the tab key, and the words that were listed."""
        self.child.send(f"{typed}\t")
        self.child.send("\x0f")
        self.child.expect(r"\r+\n<(.*?)>\r+\n")
        line, before = self.child.match[1], self.child.before
        self.child.send("\x15")
        return line, before.split()

    def close(self) -> None:
        """End it."""
        self.child.close(force=True)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    here = tmp_path_factory.mktemp("shell") / "here"
    here.mkdir()
    for name in ("rank_grid-01234567", "rank_grid-89abcdef", "mine-01234567"):
        make_study(here / "runs", name=name, examples=40)
    (here / "runs" / "studies" / "$(touch made)-01234567").mkdir()
    (here / "runs" / "studies" / "$(touch made)-01234567" / "study.json").touch()
    (here / "rankexp").write_text("#!/bin/sh\ntouch made\n")
    (here / "rankexp").chmod(0o755)
    (here / "texts.csv").touch()
    (here / "meine Läufe (1).csv").touch()
    (here / "t$(touch made).csv").touch()
    yield here
    assert not (here / "made").exists()


@pytest.fixture(scope="module")
def bash(here: Path) -> Iterator[Shell]:
    shell = Shell("bash", here)
    yield shell
    shell.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("rankexp sw", "rankexp sweep "),
        later("./rankexp sw", "./rankexp sweep "),
        later("rankexp sweep rank_al", "rankexp sweep rank_alpha "),
        ("rankexp sweep ra", "rankexp sweep rank_"),
        ("rankexp sweep rank_grid search.ra", "rankexp sweep rank_grid search.ranks="),
        later("rankexp sweep search.ra", "rankexp sweep search.ranks="),
        ("rankexp sweep task=cs", "rankexp sweep task=csv "),
        ("rankexp sweep task=csv task.path=te", "rankexp sweep task=csv task.path=texts.csv "),
        later("rankexp sweep search.strategy=ne", "rankexp sweep search.strategy=nested "),
        ("rankexp sweep decide.verdict=f", "rankexp sweep decide.verdict=false "),
        later("rankexp sweep --config-d", "rankexp sweep --config-dir "),
        ("rankexp sweep --config-dir ru", "rankexp sweep --config-dir runs/"),
        later("rankexp sweep --cfg j", "rankexp sweep --cfg job "),
        ("rankexp train --mu", "rankexp train --multirun "),
        later("rankexp train trial.ra", "rankexp train trial.rank="),
        later("rankexp report mi", "rankexp report mine "),
        ("rankexp report mine rank_grid-8", "rankexp report mine rank_grid-89abcdef "),
        later("rankexp status mine worksp", "rankexp status mine workspace="),
        ("rankexp status mine workspace=ru", "rankexp status mine workspace=runs/"),
        later("rankexp worker mine chec", "rankexp worker mine checkpoint_every="),
        ("rankexp sync mine track", "rankexp sync mine tracking.uri="),
        later("rankexp decide te", "rankexp decide texts.csv "),
        ("rankexp decide me", "rankexp decide meine\\ Läufe\\ \\(1\\).csv "),
        ("rankexp sweep task.path=me", "rankexp sweep task.path=meine\\ Läufe\\ \\(1\\).csv "),
        later("rankexp completion f", "rankexp completion fish "),
        ("rankexp verify mine --pe", "rankexp verify mine --peft "),
    ],
)
def test_the_tab_key(bash: Shell, typed: str, expected: str) -> None:
    assert bash.completed(typed) == expected


@pytest.mark.slow
def test_the_tab_key_in_zsh(here: Path, tmp_path: Path) -> None:
    (tmp_path / "here").symlink_to(here)
    shell = Shell("zsh", tmp_path / "here")
    try:
        assert shell.completed("rankexp sw") == "rankexp sweep "
        assert shell.completed("rankexp sweep task=cs").rstrip() == "rankexp sweep task=csv"
        assert shell.completed("rankexp report mi").rstrip() == "rankexp report mine"
        assert "Candidate" in shell.offered("rankexp sweep search.")[1]
    finally:
        shell.close()


@pytest.mark.slow
def test_what_is_listed(bash: Shell) -> None:
    assert set(commands()) <= set(bash.offered("rankexp ")[1])
    assert {"csv", "sentiment"} <= set(bash.offered("rankexp sweep task=")[1])
    listed = set(bash.offered("rankexp report ")[1])
    assert {"mine", "rank_grid-01234567", "rank_grid-89abcdef"} <= listed
    assert not [word for word in listed if "touch" in word]


@pytest.mark.slow
def test_an_answer_loads_nothing_heavy(tmp_path: Path) -> None:
    line = "rankexp sweep search.ra"
    own = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "PYTHONPATH": str(ROOT)}
    code = "import os; os.dup2(1, 8); from rankexp.cli import main; main()"
    command = [sys.executable, "-P", "-X", "importtime", "-c", code]
    done = subprocess.run(command, env={**os.environ, **own}, cwd=tmp_path, capture_output=True, timeout=60)
    assert done.stdout == b"search.ranks="
    loaded = {line.rpartition(b"|")[2].strip().partition(b".")[0].decode() for line in done.stderr.splitlines()}
    assert "argcomplete" in loaded
    assert not loaded & {
        "torch",
        "hydra",
        "omegaconf",
        "pandas",
        "scipy",
        "sqlalchemy",
        "mlflow",
        "transformers",
        "optuna",
    }
    assert not list(tmp_path.iterdir())


def test_names_that_a_shell_or_terminal_would_act_on_are_not_offered(tmp_path: Path) -> None:
    for name in ("$(touch made)-01234567", "`made`", "a;b", "\x1b[2J", "x\ny", "-rf", "'q'", "good-01234567", "a\x0bb"):
        (tmp_path / "studies" / name).mkdir(parents=True)
        (tmp_path / "studies" / name / "study.json").touch()
    os.symlink("/etc", tmp_path / "studies" / "linked")
    assert studies(tmp_path, "") == ["good"]
    assert studies(tmp_path, "good-0") == ["good-01234567"]
    assert studies(tmp_path / "nowhere", "") == []
    assert paths(f"{tmp_path}/studies/") == [f"{tmp_path}/studies/good-01234567/", f"{tmp_path}/studies/linked/"]


def test_options_and_values() -> None:
    sweep = commands()["sweep"]
    assert {"rank_grid", "search=", "search.ranks=", "task.path="} <= set(option_words(sweep, ""))
    assert not {"rank_grid", "launcher.worker="} & set(option_words(sweep, "", ["rank_grid"]))
    assert list(option_words(sweep, "launcher=")) == [f"launcher={one}" for one in ("local", "none", "ray", "slurm")]
    assert option_words(sweep, "nothing=") == {}
    assert list(option_words(commands()["clean"], "")) == ["workspace=", "storage="]
    assert option_words(sweep, "search.ranks") == {"search.ranks=": "Candidate ranks."}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_code_of_each_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert capsys.readouterr().out == shell_code(shell)
    assert "rankexp" in shell_code(shell)


def test_a_command_off_the_path_is_asked_where_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["/opt/mine/bin/rankexp", "completion", "bash"])
    assert 'local script="/opt/mine/bin/rankexp"' in shell_code("bash")


@pytest.mark.parametrize("words", [["-sc", "install=bash"], ["--shell-completion", "query=bash"]])
def test_hydras_own_completion_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", *words]) == 2
    assert "`rankexp completion bash`" in capsys.readouterr().err
