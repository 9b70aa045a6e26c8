"""Claims: one owner at a time, taken over from the dead and the silent."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rankexp.study.claims import ClaimLostError, Claims, database_url

OTHER = """
import sys
from rankexp.study.claims import Claims
print(Claims(sys.argv[1]).take("k"))
"""

PAUSED = """
import os, signal, sys
from rankexp.study.claims import ClaimLostError, Claims
claims = Claims(sys.argv[1], lease=0.5)
token = claims.take("k")
print(token, flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
print(claims.lost("k", token))
try:
    with claims.committing("k", token):
        print("published")
except ClaimLostError as error:
    print(error)
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return database_url(tmp_path / "study.db")


def test_a_claim_has_one_owner_until_it_is_released(url: str) -> None:
    claims = Claims(url)
    token = claims.take("k")
    assert token == 1
    assert claims.take("k") is None
    assert claims.take("other") == 1
    assert set(claims.owners()) == {"k", "other"}
    with claims.committing("k", token):
        pass
    assert claims.release("k", token)
    assert set(claims.owners()) == {"other"}
    assert claims.take("k") == 2, "a token never comes again"
    with pytest.raises(ClaimLostError), claims.committing("k", token):
        raise AssertionError("published")
    claims.close()


def test_of_many_at_once_exactly_one_wins(url: str) -> None:
    claims = Claims(url)
    with ThreadPoolExecutor(8) as pool:
        tokens = list(pool.map(lambda _: claims.take("k"), range(16)))
    assert sorted(t for t in tokens if t is not None) == [1]
    claims.close()


def test_the_dead_lose_their_claims_at_once_and_the_fence_rises(url: str) -> None:
    done = subprocess.run([sys.executable, "-c", OTHER, url], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
    claims = Claims(url)
    assert claims.take("k") == 2
    assert not claims.release("k", 1), "the dead owner's token must be worthless"
    assert claims.release("k", 2)
    claims.close()


def test_a_paused_owner_loses_its_claim_and_its_late_result_is_refused(url: str) -> None:
    with subprocess.Popen([sys.executable, "-c", PAUSED, url], stdout=subprocess.PIPE, text=True) as paused:
        assert paused.stdout is not None
        assert paused.stdout.readline() == "1\n"
        claims, deadline = Claims(url), time.monotonic() + 20
        while (token := claims.take("k")) is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert token == 2
        paused.send_signal(signal.SIGCONT)
        said, _ = paused.communicate(timeout=20)
    assert said.splitlines() == ["True", "the claim on trial k was lost to another process."]
    with claims.committing("k", token):
        pass
    claims.close()


def test_a_claim_outlives_its_lease_while_its_owner_lives(url: str) -> None:
    busy, other = Claims(url, lease=0.2), Claims(url)
    token = busy.take("k")
    assert token == 1
    time.sleep(0.6)
    assert other.take("k") is None
    assert not busy.lost("k", token)
    busy.close()
    other.close()
