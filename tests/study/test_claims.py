"""Claims: one owner at a time, taken over from the dead and the silent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from postgresql import postgresql_server

from rankexp.option_errors import ConfigError
from rankexp.ranks import RankMap
from rankexp.record.processes import host_of, this_machine, this_process
from rankexp.study.coordination.claims import CLAIMS, ClaimLostError, Claims
from rankexp.study.coordination.database import Storage, StorageError
from rankexp.study.coordination.offers import Offers
from rankexp.study.coordination.read_claims import claimed_in_own_file, ordinary
from rankexp.trial_spec import TrialSpec

SPEC = TrialSpec(
    model="m", data="d", task="csv", method="lora", rank_map=RankMap({"q": 4}), learning_rate=1e-3, steps=9
)
OTHER = """
import sys
from rankexp.study.coordination.claims import Claims
from rankexp.study.coordination.database import Storage
print(Claims(Storage(*sys.argv[1:])).take("k"))
"""

COMING_AND_GOING = """
import sys
from pathlib import Path
journal = Path(sys.argv[1])
while True:
    journal.write_bytes(b"x" * 512)
    journal.unlink()
"""

PAUSED = """
import os, signal, sys
from rankexp.record.processes import host_of, this_machine, this_process
from rankexp.study.coordination.claims import CLAIMS, ClaimLostError, Claims
from rankexp.study.coordination.database import Storage
claims = Claims(Storage(*sys.argv[1:]), lease=0.5)
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


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgresql_server() as running:
        yield running.url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "sqlite":
        return Storage.of(tmp_path)
    return Storage.of(tmp_path, request.getfixturevalue("server"))


def words(storage: Storage) -> list[str]:
    return [storage.url, storage.scope]


def test_a_claim_has_one_owner_until_it_is_released(storage: Storage) -> None:
    claims = Claims(storage)
    token = claims.take("k")
    assert token == 1
    assert claims.take("k") is None
    assert claims.take("other") == 1
    assert set(claims.owners()) == {"k", "other"}
    with claims.committing("k", token):
        pass
    claims.release("k", token)
    assert set(claims.owners()) == {"other"}
    assert claims.take("k") == 2, "a token never comes again"
    with pytest.raises(ClaimLostError), claims.committing("k", token):
        raise AssertionError("published")
    claims.close()


def test_of_many_at_once_exactly_one_wins(storage: Storage) -> None:
    claims = Claims(storage)
    with ThreadPoolExecutor(8) as pool:
        tokens = list(pool.map(lambda _: claims.take("k"), range(16)))
    assert sorted(t for t in tokens if t is not None) == [1]
    claims.close()


@pytest.mark.slow
def test_the_dead_lose_their_claims_at_once_and_the_fence_rises(storage: Storage) -> None:
    done = subprocess.run([sys.executable, "-c", OTHER, *words(storage)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
    claims = Claims(storage)
    assert claims.take("k") == 2
    claims.release("k", 1)
    assert claims.holder("k"), "the dead owner's token must be worthless"
    claims.release("k", 2)
    assert not claims.holder("k")
    claims.close()


@pytest.mark.slow
def test_a_paused_owner_loses_its_claim_and_its_late_result_is_refused(storage: Storage) -> None:
    with subprocess.Popen([sys.executable, "-c", PAUSED, *words(storage)], stdout=subprocess.PIPE, text=True) as paused:
        assert paused.stdout is not None
        assert paused.stdout.readline() == "1\n"
        claims, deadline = Claims(storage), time.monotonic() + 20
        while (token := claims.take("k")) is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert token == 2
        paused.send_signal(signal.SIGCONT)
        said, _ = paused.communicate(timeout=20)
    assert said.splitlines() == ["True", "the claim on k was lost to another process."]
    with claims.committing("k", token):
        pass
    claims.close()


@pytest.mark.slow
def test_a_claim_outlives_its_lease_while_its_owner_lives(storage: Storage) -> None:
    busy, other = Claims(storage, lease=0.4), Claims(storage)
    token = busy.take("k")
    assert token == 1
    time.sleep(1.2)
    assert other.take("k") is None
    assert not busy.lost("k", token)
    busy.close()
    other.close()


def test_a_claim_says_whether_it_ended_with_what_it_was_for(storage: Storage) -> None:
    with closing(Claims(storage)) as claims:
        assert not claims.done("k")
        token = claims.take("k")
        assert token
        assert claims.holder("k").pid == os.getpid()  # type: ignore[union-attr]
        claims.release("k", token, done=True)
        assert claims.done("k")
        assert claims.holder("k") is None
        assert claims.take("k") == 2
        assert not claims.done("k"), "it was begun again"


def test_failures_are_counted_until_it_is_done(storage: Storage) -> None:
    with closing(Claims(storage)) as one, closing(Claims(storage)) as two:
        token = one.take("k")
        assert token
        assert one.failures("k") == 0
        one.release("k", token, failed=True)
        token = two.take("k")
        assert token
        assert two.failures("k") == 1, "in any process"
        with two.committing("k", token, ends=True):
            pass
        assert one.take("k")
        assert one.failures("k") == 0


@pytest.mark.slow
def test_workspaces_that_share_a_database_do_not_meet(server: str, tmp_path: Path) -> None:
    storages = [Storage.of(tmp_path / name, server) for name in ("one", "two")]
    with closing(Claims(storages[0])) as one, closing(Claims(storages[1])) as two:
        assert one.take("k") == two.take("k") == 1
        offers = [Offers(claims, "study") for claims in (one, two)]
        offers[0].put([(SPEC, "a trial")])
        assert [offer.count() for offer in offers] == [1, 0]


@pytest.mark.slow
def test_what_is_offered_is_taken_by_those_who_come(storage: Storage) -> None:
    specs = [replace(SPEC, seed=seed) for seed in range(30)]
    with closing(Claims(storage)) as claims:
        offers = Offers(claims, "study")
        offers.put([(spec, f"trial {spec.seed}") for spec in specs])
        assert claims.take(specs[0].key)
        some = [one for _ in range(100) for one in offers.some()]
        assert {spec.seed for spec, _ in some} == set(range(1, 25)), "the first that nobody trains"
        assert all(label == f"trial {spec.seed}" for spec, label in some)
        token = claims.take(specs[1].key)
        assert token
        with claims.committing(specs[1].key, token, ends=True) as connection:
            connection.execute(offers.withdrawal(specs[1].key))
            assert offers.count() == 30, "until it is published"
        assert offers.count() == 29
        assert claims.done(specs[1].key)
        assert 1 not in {spec.seed for _ in range(100) for spec, _ in offers.some()}
        offers.put([])
        assert offers.some() == []


def test_what_cannot_be_published_is_still_claimed_and_offered(storage: Storage) -> None:
    with closing(Claims(storage)) as claims:
        offers = Offers(claims, "study")
        offers.put([(SPEC, "a trial")])
        token = claims.take(SPEC.key)
        assert token

        def publish() -> None:
            with claims.committing(SPEC.key, token, ends=True) as connection:
                connection.execute(offers.withdrawal(SPEC.key))
                raise OSError("disk full")

        with pytest.raises(OSError, match="disk full"):
            publish()
        assert offers.count() == 1
        assert claims.holder(SPEC.key)
        assert not claims.lost(SPEC.key, token)


def test_whoever_has_lost_the_lead_offers_nothing_more(storage: Storage) -> None:
    with closing(Claims(storage)) as claims:
        token = claims.take("study")
        assert token
        offers = Offers(claims, "study", lambda: claims.committing("study", token))
        offers.put([(SPEC, "a trial")])
        claims.release("study", token)
        assert claims.take("study")
        with pytest.raises(ClaimLostError):
            offers.put([])
        assert offers.count() == 1


@pytest.mark.slow
def test_a_claim_that_is_being_published_does_not_keep_the_others_from_being_renewed(storage: Storage) -> None:
    with closing(Claims(storage, lease=0.6)) as busy, closing(Claims(storage)) as other:
        tokens = {key: busy.take(key) for key in ("slow", "k")}
        assert tokens == {"slow": 1, "k": 1}
        with busy.committing("slow", 1):
            time.sleep(1.5)
            if "postgresql" in storage.url:  # SQLite lets nobody write meanwhile, thieves included
                assert other.take("k") is None
        assert not busy.lost("k", 1)
        assert other.take("k") is None


def test_the_owner_of_a_claim_is_told_from_a_process_of_the_same_number(storage: Storage) -> None:
    with closing(Claims(storage)) as claims, claims.engine.begin() as connection:
        mine = this_process()
        for key, owner in {
            "reborn": mine._replace(born=mine.born + 7),
            "container": mine._replace(machine=f"{host_of(mine.machine)}-01234567", pid=2**22 + 1),
            "renamed": mine._replace(machine=f"renamed-{mine.machine.rpartition('-')[2]}"),
        }.items():
            values = {**owner._asdict(), "expires": claims.now + 60, "done": False}
            connection.execute(CLAIMS.insert().values(scope=claims.scope, key=key, token=1, failures=0, **values))
        connection.commit()
        assert claims.take("reborn") == 2, "its owner is dead"
        assert claims.take("container") is None, "the number is another container's"
        assert claims.take("renamed") is None, "it is this process, before the machine was named anew"


def test_a_claim_says_whether_another_machine_has_done_what_it_is_for(storage: Storage) -> None:
    with closing(Claims(storage)) as claims:
        for machine, elsewhere in ((this_machine(), False), ("other-01234567", True)):
            token = claims.take(machine)
            assert token
            assert not claims.done_elsewhere(machine)
            claims.release(machine, token, done=True)
            with claims.engine.begin() as connection:
                connection.execute(CLAIMS.update().where(CLAIMS.c.key == machine).values(machine=machine))
            assert claims.take(machine)
            assert claims.done_elsewhere(machine) is elsewhere


@pytest.mark.thorough
def test_a_server_that_is_started_again_is_waited_for(tmp_path: Path) -> None:
    with postgresql_server() as server, closing(Claims(Storage.of(tmp_path, server.url), lease=2)) as claims:
        token = claims.take("k")
        assert token
        server.stop()
        threading.Timer(4, server.start).start()
        assert not claims.lost("k", token)
        with claims.committing("k", token, ends=True):
            pass
        assert claims.done("k")


@pytest.mark.slow
def test_a_workspace_keeps_its_storage(tmp_path: Path, server: str) -> None:
    kept = Storage.of(tmp_path, server)
    assert Storage.of(tmp_path) == Storage.of(tmp_path, server) == kept
    assert kept.url.startswith("postgresql+psycopg://")
    with pytest.raises(ConfigError, match="leave option 'storage' out"):
        Storage.of(tmp_path, "sqlite:///other.db")
    used = tmp_path / "used"
    used.mkdir()
    Claims(Storage.of(used)).close()
    with pytest.raises(ConfigError, match="delete it while nothing runs"):
        Storage.of(used, server)


def test_a_database_that_cannot_be_used_is_named_in_one_sentence(one_sentence: Callable[[object], str]) -> None:
    with pytest.raises(StorageError) as caught:
        Claims(Storage("postgresql+psycopg://nobody@127.0.0.1:1/none"))
    assert "127.0.0.1" in one_sentence(caught.value)


def test_a_database_whose_words_are_no_text_is_refused_with_its_name(tmp_path):
    with closing(Claims(Storage.of(tmp_path))) as claims:
        claims.take("0" * 20)
    whole = (tmp_path / "state.db").read_bytes()
    begins = whole.find(b"CREATE TABLE claims")
    assert begins > 0
    refused = 0
    for place in range(begins, begins + 200, 2):
        (tmp_path / "state.db").write_bytes(whole[:place] + b"\x80" + whole[place + 1 :])
        try:
            with closing(Claims(Storage.kept(tmp_path), reading=True)) as claims:
                claims.owners()
        except StorageError as error:
            refused += "cannot be used" in str(error)
        claimed_in_own_file(tmp_path)
    assert refused > 50


@pytest.mark.slow
def test_a_journal_that_comes_and_goes_meanwhile_is_no_foreign_file(tmp_path: Path) -> None:
    file = tmp_path / "state.db"
    file.touch()
    other = subprocess.Popen([sys.executable, "-c", COMING_AND_GOING, str(tmp_path / "state.db-journal")])
    try:
        ends, looks = time.monotonic() + 1, 0
        while time.monotonic() < ends:
            assert ordinary(file) == file
            looks += 1
        assert looks > 100
    finally:
        other.kill()
        other.wait()
