"""Claims: one owner at a time, taken over from the dead and the silent."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rankexp.study.claims import Claims, database_url

OTHER = """
import sys
from rankexp.study.claims import Claims
print(Claims(sys.argv[1]).take("k"))
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
    assert claims.renew("k", token)
    assert claims.release("k", token)
    assert claims.take("k") == 1
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


def test_the_silent_lose_their_claims_after_the_lease(url: str) -> None:
    silent, other = Claims(url, lease=0.05), Claims(url)
    token = silent.take("k")
    assert token == 1
    time.sleep(0.1)
    assert other.take("k") == 2
    assert not silent.renew("k", token)
    silent.close()
    other.close()
