"""A Slurm cluster of the tests' own, of one node, from installed binaries."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tiny import wait_until

_DAEMONS = ("munged", "slurmctld", "slurmd")
_CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=sched_interval=1
SwitchType=switch/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName={host} NodeAddr=127.0.0.1 CPUs=2
PartitionName=low Nodes={host} Default=YES PriorityTier=1 GraceTime=60
PartitionName=high Nodes={host} PriorityTier=2 PreemptMode=OFF
"""


@contextmanager
def slurm_cluster() -> Iterator[None]:
    """Run a cluster of two cores, on which a job of partition ``high`` preempts those of ``low``, after a warning.

    Skips where there are no binaries. It has no accounting, so that nobody is told of a job that ends without a word.
    """
    for name in _DAEMONS:
        if shutil.which(name) is None:
            pytest.skip(f"there is no {name}: Slurm is not installed (Debian package slurm-wlm)")
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir(mode=0o755)
    host = socket.gethostname().partition(".")[0]
    text = _CONFIGURATION.format(host=host, user=getpass.getuser(), folder=folder, ports=_free_ports(2))
    (folder / "slurm.conf").write_text(text, encoding="utf-8")
    patch = pytest.MonkeyPatch()
    patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    try:
        _start(folder)
        wait_until(lambda: "idle" in slurm("sinfo", "-h", "-o", "%T"))
        yield
    finally:
        for name in ("slurmd", "slurmctld", "munge/munged"):
            _end(folder / f"{name}.pid")
        patch.undo()
        shutil.rmtree(folder, ignore_errors=True)


def slurm(*words: str) -> str:
    """Run a command of Slurm's and return what it prints."""
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout


def _start(folder: Path) -> None:
    key = folder / "munge" / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    names = {"key": "key", "socket": "socket", "pid": "munged.pid", "log": "log", "seed": "seed"}
    files = [
        f"--{option}{'' if option == 'socket' else '-file'}={folder}/munge/{name}" for option, name in names.items()
    ]
    for words in (["munged", "--force", *files], ["slurmctld"]):
        _run(words)
    wait_until(_answers)  # a node that finds nobody to register with waits for minutes
    _run(["slurmd"])


def _answers() -> bool:
    """Whether the controller is up."""
    done = subprocess.run(["scontrol", "ping"], capture_output=True, text=True, timeout=60, check=False)
    return "UP" in done.stdout


def _run(words: list[str]) -> None:
    subprocess.run(words, check=True, timeout=60, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _end(pid: Path) -> None:
    if pid.exists():
        os.kill(int(pid.read_text()), signal.SIGTERM)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
