"""Leading a study: one at a time, given up, lost, and brought to an end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from rankexp.study.coordination.claims import CLAIMS, Claims
from rankexp.study.coordination.database import Storage
from rankexp.study.coordination.lead import Lead, StudyHeldError
from rankexp.study.coordination.read_claims import lead_of


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Claims]:
    with closing(Claims(Storage.of(tmp_path))) as claims:
        yield claims


@pytest.fixture
def there(tmp_path: Path, here: Claims) -> Iterator[Claims]:
    with closing(Claims(Storage.of(tmp_path))) as claims:
        yield claims


def take_over(claims: Claims) -> None:
    """Give the lead a higher token, as another process does once the lease has run out."""
    with claims.connect() as connection:
        connection.execute(sa.update(CLAIMS).where(CLAIMS.c.key == lead_of("s")).values(token=CLAIMS.c.token + 1))


def test_the_second_is_told_who_leads(here: Claims, there: Claims) -> None:
    Lead(here, "s")
    with pytest.raises(StudyHeldError, match=r"study s is being run by process \d+ on .+ `rankexp worker s`\."):
        Lead(there, "s")
    Lead(there, "t")


def test_a_study_that_is_led_to_its_end_is_done(here: Claims, there: Claims) -> None:
    with Lead(here, "s").until_done():
        assert not there.done(lead_of("s"))
    assert there.done(lead_of("s"))
    Lead(there, "s")


def test_one_that_is_interrupted_is_free_and_not_done(here: Claims, there: Claims) -> None:
    with pytest.raises(KeyboardInterrupt), Lead(here, "s").until_done():
        raise KeyboardInterrupt
    assert not there.done(lead_of("s"))
    Lead(there, "s")


def test_whoever_was_taken_over_from_writes_nothing(here: Claims) -> None:
    lead = Lead(here, "s")
    with lead.writing() as connection:
        assert connection.execute(sa.select(sa.literal(1))).scalar_one() == 1
    take_over(here)
    with pytest.raises(StudyHeldError, match="taken over"), lead.writing():
        pytest.fail("it may not write")


def test_a_lead_that_is_renewed_is_checked_from_what_is_known(here: Claims) -> None:
    lead = Lead(here, "s")
    lead.check()
    take_over(here)
    lead.check()  # nobody has asked the database since
    here._renew_all()
    with pytest.raises(StudyHeldError, match="taken over"):
        lead.check()
