"""``rankexp doctor``: what there is to train with here, what does not work, and what will be slow and why.

It writes nothing and opens no connection, unless ``--connect`` asks for that.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rankexp.cli.command import Command, Section
from rankexp.cli.output import INPUT_OUTPUT, OK, one_line, say
from rankexp.cli.settings import no_more, workspace_of

if TYPE_CHECKING:
    from rankexp.study.coordination.database import Storage

_PACKAGES = ("torch", "transformers", "peft", "optuna", "mlflow", "hydra-core")
_PLUGINS = ("tasks", "allocators", "strategies")
_NETWORK = {"nfs", "nfs4", "cifs", "smb", "smb3", "smbfs", "9p", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "afs"}
_GIB = 2**30
_LEAST_MEMORY, _LEAST_DISK = 4 * _GIB, 5 * _GIB
_PATIENCE_SECONDS = 5.0
_SERVERS_ARE_ASKED = "; --connect asks it"


@dataclass(frozen=True)
class Finding:
    """Something that was found.

    Attributes:
        kind: ``fact``; ``slow`` where it costs time; ``wrong`` where something does not work.
        text: One sentence; a fact is named by its topic.
        topic: What a fact is about.
    """

    kind: Literal["fact", "slow", "wrong"]
    text: str
    topic: str = ""


Findings = Iterator[Finding]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    meaning = "also ask a database and an MLflow server, which are elsewhere, to answer"
    parser.add_argument("--connect", action="store_true", help=meaning)


def run(options: argparse.Namespace, rest: list[str]) -> int:
    """Say what was found, then what is wrong and what will be slow."""
    no_more([word for word in rest if not word.startswith("workspace=")])
    found = list(findings(workspace_of(rest), connect=options.connect))
    for one in found:
        if one.kind == "fact":
            say(f"{one.topic:<12} {one_line(one.text)}")
    wrong = [one.text for one in found if one.kind == "wrong"]
    _list("what does not work:", wrong)
    _list("what will be slow here:", [one.text for one in found if one.kind == "slow"])
    if not wrong:
        say("\nEverything that was looked at works.")
    return INPUT_OUTPUT if wrong else OK


def findings(workspace: Path, *, connect: bool) -> Findings:
    """Iterate over everything that can be found out.

    Args:
        workspace: The workspace.
        connect: Whether servers may be asked.
    """
    yield from _processor()
    if find_spec("torch"):  # else the versions say that it is missing
        yield from _threads()
        yield from _accelerators()
    yield from _versions()
    yield from _plugins()
    yield from _assets()
    yield from _space("workspace", workspace)
    yield from _storage(workspace, connect=connect)
    yield from _mlflow(workspace, connect=connect)


def _list(heading: str, sentences: Sequence[str]) -> None:
    if sentences:
        say("\n".join(["", heading, *(f"  - {one_line(sentence)}" for sentence in sentences)]))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> Findings:
    import psutil

    cores, memory = _cores(), psutil.virtual_memory()
    yield Finding("fact", f"{cores} cores; {platform.processor() or platform.machine()}", "CPU")
    yield Finding("fact", f"{_gib(memory.total)}, of which {_gib(memory.available)} are free", "memory")
    if memory.available < _LEAST_MEMORY:
        yield Finding("slow", f"Only {_gib(memory.available)} of memory are free: set jobs=1 if memory runs out.")
    if (busy := os.getloadavg()[0]) > 0.75 * cores:
        yield Finding("slow", f"Other programs keep about {min(busy, cores):.1f} of {cores} cores busy.")
    if (share := _share_of_container()) < cores:
        yield Finding("slow", f"The container may use {share:g} of {cores} cores; set jobs={max(1, int(share))}.")


def _threads() -> Findings:
    import torch

    threads, cores = torch.get_num_threads(), _cores()
    yield Finding("fact", f"{threads} in torch", "threads")
    if threads < cores:
        yield Finding("slow", f"torch uses {threads} of {cores} cores; OMP_NUM_THREADS may say so.")


def _share_of_container() -> float:
    """Return how many cores' time the control group of this process has, as cgroup v2 says."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return float("inf") if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return float("inf")


def _accelerators() -> Findings:
    import torch

    from rankexp.training.device import find_device, find_precision

    yield from map(_accelerator, range(torch.cuda.device_count()))
    if not torch.cuda.is_available():
        yield Finding("fact", "none that torch can use", "GPU")
        yield Finding("slow", "There is no GPU: a core trains one trial at a time; large models take hours.")
        if Path("/dev/nvidia0").exists():
            yield Finding("wrong", f"torch {torch.__version__} cannot use the NVIDIA GPU: no CUDA, or no driver.")
    device = find_device("auto")
    precision, speedup = find_precision("auto", device)
    measured = f"; bfloat16 is {speedup:g} times as fast as float32" if speedup else ""
    yield Finding("fact", f"train.precision=auto takes {precision} on {device.type}{measured}", "precision")
    if precision == "float32":
        yield Finding("slow", "bfloat16 gains too little here, so trials train in float32.")


def _accelerator(number: int) -> Finding:
    import torch

    try:
        free, total = torch.cuda.mem_get_info(number)
        name = torch.cuda.get_device_name(number)
    except RuntimeError as error:  # one that is taken, or that the driver has lost
        return Finding("wrong", f"cuda:{number} cannot be used: {str(error).splitlines()[0]}")
    return Finding("fact", f"{name}, {_gib(total)}, of which {_gib(free)} are free", f"cuda:{number}")


def _versions() -> Findings:
    from importlib.metadata import PackageNotFoundError, version  # every command would wait for it

    yield Finding("fact", platform.python_version(), "python")
    for name in ("rankexp", *_PACKAGES):
        try:
            yield Finding("fact", version(name), name.removesuffix("-core"))
        except PackageNotFoundError:
            yield Finding("fact", "not installed", name)
            if name != "peft":  # which `rankexp verify --peft` alone needs
                yield Finding("wrong", f"{name} is not installed.")


def _plugins() -> Findings:
    """Load every task, allocator and strategy, as a study would."""
    from importlib.metadata import entry_points

    for plural in _PLUGINS:
        for entry in entry_points(group=f"rankexp.{plural}"):
            try:
                entry.load()
            except Exception as error:  # of somebody's package
                said = " ".join(str(error).split())
                yield Finding("wrong", f"{entry.name} of rankexp.{plural} cannot be loaded ({said}); install again.")


def _assets() -> Findings:
    from rankexp.assets import ASSETS, cache_folder, is_complete

    cache = cache_folder()
    yield from _space("cache", cache)
    for asset in ASSETS.values():
        there = is_complete(asset, cache / f"{asset.name}-{asset.archive_sha256[:8]}")
        wanting = f"not in the cache; `rankexp assets` fetches {asset.megabytes:g} MB"
        yield Finding("fact", "in the cache" if there else wanting, asset.name)


def _space(topic: str, folder: Path) -> Findings:
    """Look at the disk that a folder is on, or would be made on."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    free, system = shutil.disk_usage(there).free, _file_system(there)
    state = "" if there == folder.absolute() else "not there yet, "
    yield Finding("fact", f"{folder}: {state}{_gib(free)} free on {system}", topic)
    if not os.access(there, os.W_OK):
        yield Finding("wrong", f"The {topic} {folder} cannot be written.")
    if free < _LEAST_DISK:
        yield Finding("slow", f"The {topic} {folder} has {_gib(free)} left; `rankexp clean` lists what may go.")
    if _is_network(system):
        yield Finding("slow", f"The {topic} {folder} is on a network file system ({system}): every trial waits for it.")


def _file_system(folder: Path) -> str:
    import psutil

    real = folder.resolve()
    mounts = [part for part in psutil.disk_partitions(all=True) if real.is_relative_to(part.mountpoint)]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else "an unknown file system"


def _is_network(system: str) -> bool:
    return system.removeprefix("fuse.").lower() in _NETWORK or system.startswith(("fuse.sshfs", "fuse.s3"))


def _storage(workspace: Path, *, connect: bool) -> Findings:
    from rankexp.record.files import RecordError
    from rankexp.safety.consent import has_consent
    from rankexp.study.coordination.database import Storage

    try:
        storage = Storage.kept(workspace)
    except RecordError as error:
        yield Finding("wrong", str(error))
        return
    named = storage.within(workspace) or has_consent(workspace, storage.url)
    place = str(storage.file or storage.url)
    if not named:
        yield Finding("fact", f"{place}, which you have not named for this workspace", "storage")
        yield Finding("wrong", f"The workspace keeps its state in {place}; name it with storage=URL if that is right.")
    elif not storage.is_there():
        yield Finding("fact", f"{place}, made by the first study", "storage")
    elif storage.file is None and not connect:
        yield Finding("fact", f"{place}{_SERVERS_ARE_ASKED}", "storage")
    else:
        yield from _asked(storage, place)
    if storage.file is not None and workspace.is_dir() and _is_network(_file_system(workspace)):
        yield Finding(
            "wrong", "SQLite is not safe on a network file system; several machines need storage=postgresql://…"
        )


def _asked(storage: Storage, place: str) -> Findings:
    """Ask a database who is at work."""
    from rankexp.study.coordination.claims import Claims
    from rankexp.study.coordination.database import StorageError

    try:
        with closing(Claims(storage, reading=True)) as claims:
            owners = claims.owners()
    except StorageError as error:
        yield Finding("fact", f"{place} does not answer", "storage")
        yield Finding("wrong", f"Nobody can train here: {error}")
    else:
        yield Finding("fact", f"{place} answers; {len(owners)} claims", "storage")


def _mlflow(workspace: Path, *, connect: bool) -> Findings:
    from rankexp.option_errors import ConfigError
    from rankexp.tracking import TrackingError, find_store, shown
    from rankexp.tracking.own_store import check_ordinary

    try:
        store = find_store(workspace, None)
        if store is None:
            check_ordinary(workspace.absolute() / "mlflow.db", workspace.absolute() / "mlartifacts")
            yield Finding("fact", f"mirrored in {workspace / 'mlflow.db'}", "MLflow runs")
            return
    except (ConfigError, TrackingError) as error:
        yield Finding("wrong", str(error))
        return
    is_server = store.startswith("http")
    note = _SERVERS_ARE_ASKED if is_server and not connect else ""
    yield Finding("fact", f"mirrored in {shown(store)}, as MLFLOW_TRACKING_URI says{note}", "MLflow runs")
    if is_server and connect:
        answers = _answers(store)
        yield Finding("fact", "answers" if answers else "does not answer", "server")
        if not answers:
            yield Finding("wrong", f"{shown(store)} does not answer; runs are mirrored later, by `rankexp sync STUDY`.")


def _answers(url: str) -> bool:
    """Whether somebody listens where a URL points."""
    import socket
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        with socket.create_connection((parts.hostname or "", port), timeout=_PATIENCE_SECONDS):
            return True
    except (OSError, ValueError):
        return False


def _gib(size: float) -> str:
    return f"{size / _GIB:.1f} GiB"


COMMAND = Command(
    Section.SET_UP,
    "say what there is to train with here, what does not work, and what will be slow and why",
    run,
    arguments,
    settings=("workspace",),
    place=1,
)
