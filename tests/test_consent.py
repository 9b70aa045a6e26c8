"""Which servers a user has named for which workspace."""

import os
import subprocess
import sys

import pytest

from rankexp.safety.consent import give_consent, has_consent

URL = "postgresql://somebody:secret@example.org/db"


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RANKEXP_CONFIG", str(tmp_path / "config"))


def test_a_server_counts_for_the_workspace_that_it_was_named_for(tmp_path):
    assert not has_consent(tmp_path / "a", URL)
    give_consent(tmp_path / "a", URL)
    give_consent(tmp_path / "a", "other")
    assert has_consent(tmp_path / "a", URL)
    assert has_consent(tmp_path / "b" / ".." / "a", URL)
    assert not has_consent(tmp_path / "b", URL)
    assert not has_consent(tmp_path / "a", URL + "x")


def test_what_is_kept_gives_no_url_away(tmp_path):
    give_consent(tmp_path, URL)
    (kept,) = (tmp_path / "config").glob("*.json")
    assert b"secret" not in kept.read_bytes()
    assert b"example" not in kept.read_bytes()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": '])
def test_what_cannot_be_read_is_no_consent(tmp_path, text):
    give_consent(tmp_path, URL)
    (kept,) = (tmp_path / "config").glob("*.json")
    kept.write_text(text)
    assert not has_consent(tmp_path, URL)
    give_consent(tmp_path, URL)
    assert has_consent(tmp_path, URL)


def test_without_a_place_to_keep_it_nothing_is_remembered_and_nothing_raised(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("RANKEXP_CONFIG", str(tmp_path / "file" / "config"))
    give_consent(tmp_path, URL)
    assert not has_consent(tmp_path, URL)


@pytest.mark.slow
def test_several_at_once_lose_nothing(tmp_path):
    code = "import sys; from pathlib import Path; from rankexp.safety.consent import give_consent\n"
    code += "for i in range(10): give_consent(Path(sys.argv[1]), f'{sys.argv[2]}-{i}')"
    at_work = [subprocess.Popen([sys.executable, "-c", code, tmp_path, name], env=os.environ) for name in "abc"]
    assert [process.wait() for process in at_work] == [0, 0, 0]
    assert all(has_consent(tmp_path, f"{name}-{i}") for name in "abc" for i in range(10))
