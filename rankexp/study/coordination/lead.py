"""Leading a study: one process at a time plans what is trained and says what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import sqlalchemy as sa

from rankexp.study.coordination.claims import ClaimLostError, Claims
from rankexp.study.coordination.database import StorageError
from rankexp.study.coordination.read_claims import lead_of, owner_of


class StudyHeldError(Exception):
    """Another process leads the study; the message names it."""


class Lead:
    """The claim on leading a study.

    Args:
        claims: The claims of the workspace.
        study: Name of the study.

    Raises:
        StudyHeldError: Another process leads it.
    """

    def __init__(self, claims: Claims, study: str) -> None:
        self._claims, self._study, self._key = claims, study, lead_of(study)
        token = claims.take(self._key)
        if token is None:
            holder = claims.holder(self._key)
            who = owner_of(holder) if holder else "another process"
            raise StudyHeldError(
                f"study {study} is being run by {who}; wait for it, stop it, or help it with `rankexp worker {study}`."
            )
        self._token = token

    def check(self) -> None:
        """Make sure that nobody has taken over, as far as is known.

        Raises:
            StudyHeldError: Somebody has.
        """
        if self._claims.lost(self._key, self._token):
            raise self._taken_over()

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Keep others from taking over meanwhile, and give a connection for what is written to the database.

        Raises:
            StudyHeldError: Another process has taken over.
        """
        try:
            with self._claims.committing(self._key, self._token) as connection:
                yield connection
        except ClaimLostError:
            raise self._taken_over() from None

    @contextmanager
    def until_done(self) -> Iterator[None]:
        """Give the lead up, and if nothing is raised say that the study has ended."""
        try:
            yield
        except BaseException:
            with suppress(StorageError):  # what ended it is to be told, not what followed
                self._claims.release(self._key, self._token)
            raise
        self._claims.release(self._key, self._token, done=True)

    def _taken_over(self) -> StudyHeldError:
        return StudyHeldError(f"study {self._study} was taken over by another process.")
