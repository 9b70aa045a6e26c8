"""The processes that train for a study, as one of them sees the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rankexp.study.coordination.claims import Claims
from rankexp.study.coordination.offers import Offers
from rankexp.trial_spec import TrialSpec


@dataclass(frozen=True)
class Team:
    """What a process asks the others of its workspace by way of the database.

    Attributes:
        claims: Who trains what.
        offers: What whoever leads the study wants trained.
        size: Counts the processes that train for the study, this one included.
        check_lead: Raises StudyHeldError where this process led the study and another has taken over.
    """

    claims: Claims
    offers: Offers
    size: Callable[[], int] = lambda: 1
    check_lead: Callable[[], None] = lambda: None

    def claim(self, key: str) -> TrialClaim | None:
        """Claim a trial; None while another process trains it."""
        token = self.claims.take(key)
        return None if token is None else TrialClaim(self, key, token)

    def claim_all(self, keys: Sequence[str]) -> list[TrialClaim]:
        """Claim several trials, or none of them while another process trains one."""
        claimed = list[TrialClaim]()
        for key in keys:
            if (claim := self.claim(key)) is None:
                for other in claimed:
                    other.release()
                return []
            claimed.append(claim)
        return claimed

    def offered(self) -> list[tuple[TrialSpec, str]]:
        """Return some of what the leader wants, with what to call it."""
        return self.offers.some()


@dataclass(frozen=True)
class TrialClaim:
    """A trial that this process may train.

    Attributes:
        team: Where it was claimed.
        key: Content key of the trial.
        token: The fencing token.
    """

    team: Team
    key: str
    token: int

    @property
    def failures(self) -> int:
        """How often the trial had failed before, in any process."""
        return self.team.claims.failures(self.key)

    @property
    def done_elsewhere(self) -> bool:
        """Whether another machine had recorded the trial before it was claimed here."""
        return self.team.claims.done_elsewhere(self.key)

    def lost(self) -> bool:
        """Whether another process has taken the trial over, as far as is known."""
        return self.team.claims.lost(self.key, self.token)

    def release(self, *, done: bool = False, failed: bool = False) -> None:
        """End the claim, unless it has ended or was lost."""
        self.team.claims.release(self.key, self.token, done=done, failed=failed)

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """Hold the claim while the result is published, which ends it and takes the offer back.

        Raises:
            ClaimLostError: Another process has the claim.
        """
        with self.team.claims.committing(self.key, self.token, ends=True) as connection:
            connection.execute(self.team.offers.withdrawal(self.key))
            yield
