"""A workspace, a configuration folder and a model folder of somebody who means harm, each with every trick we know."""

from __future__ import annotations

import json
import os
import pickle
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
from fake_study import make_study
from safetensors.numpy import save_file


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self.path, "w")


def hostile_workspace(folder: Path, canary: Path, port: int) -> Path:
    """Make a workspace whose study looks finished and whose every place leads elsewhere, and return the study."""
    study = make_study(folder, examples=200)
    runs = folder
    values = json.loads((study / "study.json").read_text())
    values["config"]["tracking"] = {"name": "mlflow", "uri": f"http://127.0.0.1:{port}"}
    values["data"]["labels"] = ["=HYPERLINK(1)", "\x1b[31mred", "<img src=x onerror=alert(1)>"]
    values["model"]["source"] = "../../victim"
    (study / "study.json").write_text(json.dumps(values))
    (runs / "storage.json").write_text(
        json.dumps({"url": f"postgresql+psycopg://me@127.0.0.1:{port}/db", "scope": "0123abcd"})
    )
    for name in ("checkpoints", "set_aside", "comparisons", "mlartifacts"):
        (runs / name).symlink_to(canary)
    (study / "report").mkdir()
    (study / "report" / "figures").symlink_to(canary)
    (study / "report" / "notes.txt").symlink_to(canary / "secret.txt")
    (study / "report" / "manifest.json").write_text(
        json.dumps({"files": {"figures/secret.png": "0" * 64, "../../../../canary/secret.txt": "0" * 64}})
    )
    (study / "workers").symlink_to(canary)
    (study / "pruned").symlink_to(canary)
    (study / "study.db").symlink_to(canary / "places.sqlite")
    (runs / "mlflow-ui.log").symlink_to(canary / "secret.txt")
    (runs / "mlflow.db.lock").symlink_to(canary / "secret.txt")
    (runs / ".mlflow-sync.lock").symlink_to(canary / "secret.txt")
    (runs / "test_ledger").mkdir(exist_ok=True)
    (runs / "test_ledger" / ".tmp-x-1@elsewhere-00000000").symlink_to(canary)
    _foreign_mlflow(runs / "mlflow.db", canary)
    return study


def _foreign_mlflow(path: Path, canary: Path) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE experiments (experiment_id INTEGER, name TEXT, artifact_location TEXT)")
        database.execute("INSERT INTO experiments VALUES (1, 'fake', ?)", (canary.as_uri(),))
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")


def evil_configurations(canary: Path, made: Path) -> dict[str, str]:
    """Files of a configuration folder by what they try."""
    head = "defaults:\n  - rank_grid\n  - _self_\n"
    target = f"{{_target_: builtins.open, _args_: ['{made}', w]}}"
    return {
        "leaves": "defaults:\n  - rank_grid\n  - ../evil\n  - _self_\n",
        "absolute": f"defaults:\n  - rank_grid\n  - {canary}/evil\n  - _self_\n",
        "callbacks": f"{head}hydra:\n  callbacks:\n    x: {target}\n",
        "env_set": f"{head}hydra:\n  job:\n    env_set: {{LD_PRELOAD: {made}}}\n",
        "env_copy": f"{head}hydra:\n  job:\n    env_copy: [HOME]\n",
        "chdir": f"{head}hydra:\n  job:\n    chdir: true\n  run:\n    dir: {made}\n",
        "logging": (
            "defaults:\n  - rank_grid\n  - override hydra/job_logging: default\n  - _self_\nhydra:\n  job_logging:\n"
            f"    handlers:\n      file: {{class: logging.FileHandler, filename: '{made}'}}\n"
        ),
        "run_dir": f"{head}hydra:\n  run:\n    dir: {made}\n  output_subdir: x\n",
        "sweep_dir": f"{head}hydra:\n  sweep:\n    dir: {made}\n",
        "setup": f"{head}hydra:\n  launcher:\n    setup: ['touch {made}']\n",
        "sweeper": f"{head}hydra:\n  sweeper: {target}\n",
        "searchpath": f"{head}hydra:\n  searchpath: ['file://{canary}']\n",
        "secret": f"{head}tracking:\n  uri: http://127.0.0.1/${{oc.env:SECRET}}\n",
        "decode": f"{head}study: ${{oc.decode:'x'}}\n",
        "target": f"{head}model: {target}\n",
        "package": f"# @package hydra\n{head}run:\n  dir: {made}\n",
        "python": f"{head}study: !!python/object/apply:os.mkdir ['{made}']\n",
        "bomb": "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(
            f"{n}: &{n} [{', '.join([f'*{before}'] * 9)}]\n" for before, n in zip("abcdefgh", "bcdefghi", strict=True)
        )
        + head,
        "deep": head + "study: " + "[" * 5000 + "]" * 5000 + "\n",
    }


def hostile_model(folder: Path, canary: Path, made: Path) -> dict[str, Path]:
    """Make folders that pass for models, and return them by what they try."""
    found = {}
    for trick in (
        "auto_map",
        "pickle",
        "index",
        "link",
        "adapter",
        "nested_code",
        "config_link",
        "deep",
        "tokenizer_code",
    ):
        place = folder / trick
        _model(place)
        found[trick] = place
    _change(found["auto_map"] / "config.json", auto_map={"AutoModel": "evil.Model", "AutoConfig": "evil.Config"})
    (found["auto_map"] / "evil.py").write_text(f"open({str(made)!r}, 'w')\n")
    (found["pickle"] / "model.safetensors").unlink()
    (found["pickle"] / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(made)))
    index = {"metadata": {"total_size": 1}, "weight_map": {"bert.pooler.dense.weight": "../../canary/secret.txt"}}
    (found["index"] / "model.safetensors").rename(found["index"] / "model-00001-of-00001.safetensors")
    (found["index"] / "model.safetensors.index.json").write_text(json.dumps(index))
    (found["link"] / "model.safetensors").rename(canary / "model.safetensors")
    (found["link"] / "model.safetensors").symlink_to(canary / "model.safetensors")
    (found["adapter"] / "adapter_config.json").write_text(
        json.dumps(
            {"peft_type": "LORA", "base_model_name_or_path": str(canary), "auto_mapping": {"parent_library": "evil"}}
        )
    )
    _change(found["nested_code"] / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", None]})
    (found["config_link"] / "config.json").unlink()
    (found["config_link"] / "config.json").symlink_to(canary / "secret.txt")
    (found["deep"] / "config.json").write_text("[" * 100_000)
    _change(
        found["tokenizer_code"] / "tokenizer_config.json",
        tokenizer_class="evil.Tokenizer",
        extra_special_tokens={"a": "b"},
    )
    return found


def _change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def _model(folder: Path) -> None:
    folder.mkdir(parents=True)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "vocab_size": 4,
        "max_position_embeddings": 64,
        **sizes,
    }
    words = {"type": "WordLevel", "vocab": {"[PAD]": 0, "[UNK]": 1, "good": 2, "bad": 3}, "unk_token": "[UNK]"}
    tokenizer = {"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"}, "model": words}
    tokens = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    for name, value in (("config", config), ("tokenizer", tokenizer), ("tokenizer_config", tokens)):
        (folder / f"{name}.json").write_text(json.dumps(value))
    save_file({"pooler.dense.weight": np.zeros((8, 8), np.float32)}, folder / "model.safetensors")


def make_canary(folder: Path) -> Path:
    """Make a folder that nobody has any business in."""
    folder.mkdir()
    (folder / "secret.txt").write_text("nobody's business")
    (folder / "secret.png").write_bytes(b"a picture")
    (folder / "evil.yaml").write_text("study: evil\n")
    with closing(sqlite3.connect(folder / "places.sqlite")) as database, database:
        database.execute("CREATE TABLE places (name TEXT)")
    return folder


def state_of(folder: Path) -> dict[str, tuple[int, bytes | str]]:
    """Everything below a folder with its time of change, links unfollowed."""
    found: dict[str, tuple[int, bytes | str]] = {}
    for path in sorted(folder.rglob("*")):
        with suppress(OSError):
            if path.is_symlink():
                found[str(path)] = 0, os.readlink(path)
            elif path.is_file():
                found[str(path)] = path.lstat().st_mtime_ns, path.read_bytes()
            else:
                found[str(path)] = 0, "folder"
    return found
