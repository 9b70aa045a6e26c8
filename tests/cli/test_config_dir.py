"""Files of a ``--config-dir``: one's own work, and those of somebody else can do nothing but set rankexp's options."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rankexp.cli.compose import launcher_options, run_with_hydra
from rankexp.cli.main import main
from rankexp.config import StudyConfig
from rankexp.option_errors import ConfigError

pytestmark = pytest.mark.slow

OWN = "defaults:\n  - config\n  - _self_\nstudy: mine\n"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("SECRET", "xyzzy")


def folder_of(tmp_path: Path, **files: str) -> Path:
    folder = tmp_path / "conf"
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def composed(folder: Path, *words: str, name: str = "mine") -> StudyConfig:
    found: list[StudyConfig] = []
    run_with_hydra(name, [f"--config-dir={folder}", *words], found.append)
    (config,) = found
    return config


def left_behind(tmp_path: Path) -> list[Path]:
    return [path for path in tmp_path.rglob("*") if tmp_path / "conf" not in [path, *path.parents]]


def test_a_sweep_of_ones_own_with_groups_of_its_own(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path,
        mine="defaults:\n  - rank_grid\n  - override /model: small\n  - override /train: short\n"
        "  - override /search: squeeze\n  - _self_\nstudy: mine\nworkspace: runs/${study}\nsearch:\n  ranks: [2, 3]\n  shortlist: ${decide.seeds}\n"
        "hydra:\n  launcher:\n    partition: gpu\n    timeout_min: 90\n",
        model__small="defaults:\n  - tiny\n  - _self_\nname: ${.source}-small\n",
        train__short="# @package train\nsteps: 7\nwarmup_steps: 1\n",
    )
    for words in (["launcher=slurm"], ["launcher=slurm", "hydra/launcher=submitit_slurm"]):
        config = composed(folder, *words)
        assert (config.study, config.search.ranks, config.train.steps) == ("mine", [2, 3], 7)
        assert (config.model.name, config.search.options["shortlist"]) == ("config-small", 3)
        assert config.workspace == Path("runs/mine")
        options = launcher_options("mine", [f"--config-dir={folder}", *words])
        assert (options["partition"], options["timeout_min"]) == ("gpu", 90)


def test_ones_own_folder_goes_to_slurm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    folder = folder_of(
        tmp_path,
        mine=OWN + "launcher:\n  dry_run: true\nworkers: 3\n",
        launcher__ours="# @package _global_\ndefaults:\n  - override /hydra/launcher: submitit_slurm\n"
        "launcher: {name: slurm, dry_run: true, worker: 0}\nhydra:\n  launcher: {account: us, qos: low}\n",
    )
    assert main(["sweep", "mine", "--config-dir", str(folder), "launcher=ours", "hydra.launcher.gres=gpu:2"]) == 0
    script = capsys.readouterr().out
    for line in ("--account=us", "--qos=low", "--gres=gpu:2", "--array=0-2%3"):
        assert f"#SBATCH {line}\n" in script
    assert "export PYTHONSAFEPATH=1" in script


def test_ones_own_folder_goes_to_ray(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    text = "defaults:\n  - config\n  - override launcher: ray\n  - _self_\nstudy: mine\nworkers: 2\n"
    folder = folder_of(tmp_path, mine=text + "hydra:\n  launcher:\n    ray:\n      remote: {num_gpus: 1}\n")
    assert composed(folder).launcher.name == "ray"
    assert launcher_options("mine", [f"--config-dir={folder}"])["ray"]["remote"] == {"num_gpus": 1}


@pytest.mark.parametrize("place", ['"\\uD83D"', '"runs/\\uDC00"', '"runs/\\0"', "runs/../..", "/tmp", '"~"'])
def test_a_workspace_that_is_no_place_below_is_refused(tmp_path: Path, place: str, one_sentence: object) -> None:
    folder = folder_of(tmp_path, mine=OWN + f"workspace: {place}\n")
    with pytest.raises(ConfigError, match="not below the current folder"):
        composed(folder)


def test_what_is_typed_is_the_users_own_word(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, mine=OWN + "storage: postgresql://them/x\nworkspace: /elsewhere\n")
    for words in ([], ["storage=null"], ["workspace=runs"]):
        with pytest.raises(ConfigError, match="yourself"):
            composed(folder, *words)
    config = composed(folder, "storage=postgresql://us/x", "workspace=${oc.env:SECRET}/runs")
    assert (config.storage, str(config.workspace)) == ("postgresql://us/x", "xyzzy/runs")
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    words = ["storage=null", "workspace=runs", "launcher=slurm", "hydra.launcher.setup=[module load cuda]"]
    assert launcher_options("mine", [f"--config-dir={folder}", *words])["setup"] == ["module load cuda"]
    assert composed(folder, *words).launcher.name == "slurm"


HYDRAS = {
    "callbacks": "callbacks: {x: {_target_: os.mkdir}}",
    "callbacks without a target": "callbacks: {x: {a: 1}}",
    "searchpath": "searchpath: [pkg://antigravity]",
    "job.env_set": "job: {env_set: {PATH: /tmp}}",
    "job.env_copy": "job: {env_copy: [SECRET]}",
    "job.chdir": "job: {chdir: true}",
    "job_logging": "job_logging: {version: 1, root: {handlers: [f]}, handlers: {f: {class: logging.FileHandler}}}",
    "hydra_logging": "hydra_logging: {version: 1}",
    "run.dir": "run: {dir: ../made}",
    "sweep.dir": "sweep: {dir: ../made}",
    "output_subdir": "output_subdir: made",
    "sweeper": "sweeper: {params: {study: 'a,b'}}",
    "mode": "mode: MULTIRUN",
    "help.template": "help: {template: '${oc.env:SECRET}'}",
    "verbose": "verbose: true",
    "launcher.setup": "launcher: {setup: [touch /tmp/made]}",
    "launcher.additional_parameters": "launcher: {additional_parameters: {wrap: touch}}",
    "launcher.submitit_folder": "launcher: {submitit_folder: /tmp/made}",
    "launcher._target_": "launcher: {_target_: os.mkdir}",
    "launcher.partition": r'launcher: {partition: "gpu\n#SBATCH --output=/tmp/made"}',
    "launcher.account": "launcher: {account: us --output=/tmp/made}",
    "launcher.name": "launcher: {name: '${task.path}'}",
    "launcher.qos": "launcher: {qos: [a]}",
    "launcher.ray.init.runtime_env": "launcher: {ray: {init: {runtime_env: {env_vars: {A: b}}}}}",
    "launcher.ray.init.address": "launcher: {ray: {init: {address: '10.0.0.1:1'}}}",
}


@pytest.mark.parametrize("option", HYDRAS)
def test_an_option_on_which_hydra_acts(tmp_path: Path, option: str, one_sentence) -> None:  # type: ignore[no-untyped-def]
    folder = folder_of(tmp_path, mine=f"{OWN}hydra:\n  {HYDRAS[option]}\n")
    for words in ([], ["launcher=slurm"]):
        with pytest.raises(ConfigError, match=r"mine\.yaml is refused") as refused:
            composed(folder, *words)
        assert f"hydra.{option.split()[0]}" in one_sentence(refused.value) or "_target_" in str(refused.value)
    assert left_behind(tmp_path) == [tmp_path / "here"]


DEFAULTS = [
    "../evil", "/../evil", "model/../../evil", "/{EVIL}", "//{EVIL}", "file://{EVIL}", "pkg://antigravity",
    "model: ../../evil", "model: '{EVIL}'", "model: [tiny, ../evil]", "override /model: ../evil", "'${{study}}'",
    "model: ${{oc.env:SECRET}}", "hydra/callbacks: x", "override hydra/job_logging: default",
    "override /hydra/launcher: joblib", "override hydra/launcher: evil", "hydra/config", "model@hydra.job: tiny",
    "model@hydra: tiny", "model@_global_.hydra: tiny", "tiny@hydra.launcher", "3", "{{model: tiny, task: csv}}",
]  # fmt: skip


@pytest.mark.parametrize("default", DEFAULTS)
def test_a_default_that_leads_elsewhere(tmp_path: Path, default: str, one_sentence) -> None:  # type: ignore[no-untyped-def]
    evil = tmp_path / "evil"
    evil.with_suffix(".yaml").write_text("study: evil\n", encoding="utf-8")
    line = default.format(EVIL=evil) if "{" in default else default
    folder = folder_of(tmp_path, mine=f"defaults:\n  - config\n  - {line}\n  - _self_\nstudy: mine\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml is refused") as refused:
        composed(folder)
    one_sentence(refused.value)


VALUES = [
    "device: ${oc.env:SECRET}", "device: '${oc.decode:x}'", "device: ${hydra:runtime.cwd}", "device: ${hydra.job.name}",
    "device: '${${study}:SECRET}'", "device: ${now:%Y}", "device: ${env:SECRET}", "task: {name: '${oc.create:x}'}",
    "device: ${ oc.env:SECRET }", 'device: "\\x24{oc.env:SECRET}"', "decide: {seeds: ['${oc.env:SECRET}']}",
    "model: {architecture: {_target_: os.mkdir}}", "task: {'a_target_': x}", "device: ${..hydra.job.name}",
    "device: !!python/name:os.mkdir ''", "device: !!python/object/apply:os.mkdir [made]", "device: !!str cpu",
    "device: &a cpu", "decide: &d {seeds: 3}\ntrain: {<<: *d}", "device: cpu\ndevice: cuda", "device: [", "- 1",
    f"decide: {{seeds: {'[' * 60}{']' * 60}}}", "decide: {seeds: " + "9" * 5000 + "}", "device: \x07", "a\0b: c",
    "device: " + "x" * (1 << 18), "~: 1", "1.5: x",
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_a_value_that_is_not_plain(tmp_path: Path, value: str, one_sentence) -> None:  # type: ignore[no-untyped-def]
    folder = folder_of(tmp_path, mine=f"{OWN}{value}\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml") as refused:
        composed(folder)
    assert "xyzzy" not in one_sentence(refused.value)
    assert left_behind(tmp_path) == [tmp_path / "here"]


@pytest.mark.parametrize("package", ["hydra", "hydra.launcher", "_global_.hydra.job", "_name_", "logging"])
def test_a_package_that_is_no_place_of_ours(tmp_path: Path, package: str) -> None:
    text = f"# @package {package}\noutput_subdir: made\n"
    folder = folder_of(
        tmp_path, mine="defaults:\n  - config\n  - model: evil\n  - _self_\nstudy: mine\n", model__evil=text
    )
    with pytest.raises(ConfigError, match=r"evil\.yaml is refused: package"):
        composed(folder)


@pytest.mark.parametrize("name", ["hydra__launcher__mine", "hydra__job_logging__mine", "hydra__callbacks__mine"])
def test_groups_of_hydras_own(tmp_path: Path, name: str) -> None:
    folder = folder_of(tmp_path, mine=OWN, **{name: "x: {_target_: logging.warning, msg: ran}\n"})
    with pytest.raises(ConfigError, match="folder 'hydra'"):
        composed(folder, f"+{name.rpartition('__')[0].replace('__', '/')}=mine")


def test_a_sweep_that_does_not_build_on_rankexps_own(tmp_path: Path) -> None:
    """Hydra would make folders of its own."""
    with pytest.raises(ConfigError, match=r"`- config`"):
        composed(folder_of(tmp_path, mine="study: mine\n"))
    assert left_behind(tmp_path) == [tmp_path / "here"]


def test_references_that_would_fill_the_memory(tmp_path: Path) -> None:
    text = "".join(f"  a{n}: '{f'${{.a{n + 1}}}' * 9}'\n" for n in range(9)) + "  a9: x\n"
    with pytest.raises(ConfigError, match="references"):
        composed(folder_of(tmp_path, mine=f"{OWN}model:\n  architecture:\n{text.replace('  a', '    a')}"))


@pytest.mark.parametrize("text", ["device: ${study}\nstudy: ${device}\n", "study: ${study}\n"])
def test_references_that_go_round(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        composed(folder_of(tmp_path, mine=f"defaults: [config, _self_]\n{text}"))


def test_a_sweep_that_builds_on_itself(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        composed(folder_of(tmp_path, mine="defaults: [config, mine, _self_]\nstudy: mine\n"))


def test_links_and_pipes(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, other=OWN)
    (tmp_path / "outside.yaml").write_text(OWN, encoding="utf-8")
    (folder / "mine.yaml").symlink_to(tmp_path / "outside.yaml")
    with pytest.raises(ConfigError, match="leads out of"):
        composed(folder)
    (folder / "mine.yaml").unlink()
    (folder / "mine.yaml").symlink_to("other.yaml")
    assert composed(folder).study == "mine"
    (folder / "mine.yaml").unlink()
    os.mkfifo(folder / "mine.yaml")
    with pytest.raises(ConfigError, match="mine"):
        composed(folder)


@pytest.mark.parametrize("content", [b"study: \xff\n", b"\x00", b"study: m\x00ine\n"])
def test_a_file_that_is_no_text(tmp_path: Path, content: bytes) -> None:
    folder = folder_of(tmp_path, mine=OWN)
    (folder / "mine.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"mine\.yaml"):
        composed(folder)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no folder"):
        composed(tmp_path / "nowhere")


@pytest.mark.parametrize("choice", ["model=../../evil", "model={}/evil", "+hydra/job_logging=../x", "model=file:///x"])
def test_a_typed_choice_is_no_path(tmp_path: Path, choice: str) -> None:
    (tmp_path / "evil.yaml").write_text("# @package _global_\nhydra: {output_subdir: made}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="names a file elsewhere"):
        run_with_hydra("rank_grid", [choice.format(tmp_path)], lambda _: None)


@pytest.mark.parametrize("name", ["../evil", "{}/evil", "file://{}/evil", "a/../../evil"])
def test_a_typed_sweep_is_no_path(tmp_path: Path, name: str) -> None:
    (tmp_path / "evil.yaml").write_text("hydra: {output_subdir: made}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="is a place, not a sweep"):
        composed(folder_of(tmp_path, mine=OWN), name=name.format(tmp_path))


def test_the_configuration_of_ones_own_folder_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(tmp_path, mine=OWN + "device: ${oc.env:SECRET}\n", good=OWN)
    assert main(["sweep", "good", f"--config-dir={folder}", "--cfg", "job", "launcher=slurm"]) == 0
    assert "name: slurm" in capsys.readouterr().out
    assert main(["sweep", "mine", f"--config-dir={folder}", "--cfg", "job", "--resolve"]) == 2
    assert "xyzzy" not in "".join(capsys.readouterr())
    assert main(["sweep", "good", f"--config-dir={folder}", "--cfg", "job", "studdy=x"]) == 2
    assert "did you mean 'study'" in capsys.readouterr().err
