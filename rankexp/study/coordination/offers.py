"""What the process that leads a study wants trained, for others to take: a table beside the claims."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import sqlalchemy as sa
from sqlalchemy.schema import CreateTable

from rankexp.canonical_json import canonical_json
from rankexp.study.coordination.claims import CLAIMS, METADATA, Claims
from rankexp.study.coordination.database import making_tables
from rankexp.trial_spec import TrialSpec

OFFERS = sa.Table(
    "offers",
    METADATA,
    sa.Column("scope", sa.String(16), primary_key=True),
    sa.Column("study", sa.String(255), primary_key=True),
    sa.Column("place", sa.Integer, primary_key=True),
    sa.Column("key", sa.String(64), nullable=False),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("spec", sa.Text, nullable=False),
    sa.UniqueConstraint("key", "study", "scope"),
)
Leading = Callable[[], AbstractContextManager[sa.Connection]]
_FIRST, _SOME = 24, 4
"""How many of the first are looked at, and how many of those returned, so that processes that ask at once do not all
ask for one."""


class Offers:
    """The trials that a study wants now and has not got; safe to use from several threads.

    Args:
        claims: The claims of the workspace.
        study: Name of the study.
        leading: Gives the connection of whoever may offer, because it leads the study.
    """

    def __init__(self, claims: Claims, study: str, leading: Leading | None = None) -> None:
        self._claims, self._leading = claims, leading or claims.engine.begin
        self._own = (OFFERS.c.scope == claims.scope) & (OFFERS.c.study == study)
        self._name = {"scope": claims.scope, "study": study}
        with making_tables(claims.engine) as connection:
            connection.execute(CreateTable(OFFERS, if_not_exists=True))

    def put(self, wanted: Sequence[tuple[TrialSpec, str]]) -> None:
        """Offer trials with what to call them, in this order, instead of whatever was offered before.

        Raises:
            StudyHeldError: Another process leads the study.
        """
        rows = [
            {**self._name, "place": place, "key": spec.key, "label": label, "spec": canonical_json(spec.to_dict())}
            for place, (spec, label) in enumerate(wanted)
        ]
        with self._leading() as connection:
            connection.execute(OFFERS.delete().where(self._own))
            if rows:
                connection.execute(OFFERS.insert(), rows)

    def some(self) -> list[tuple[TrialSpec, str]]:
        """Return a few of the first that nobody is training, in any order."""
        joined = OFFERS.outerjoin(CLAIMS, (CLAIMS.c.scope == OFFERS.c.scope) & (CLAIMS.c.key == OFFERS.c.key))
        free = CLAIMS.c.key.is_(None) | (CLAIMS.c.expires < self._claims.now)
        asked = sa.select(OFFERS.c.spec, OFFERS.c.label).select_from(joined).where(self._own, free)
        with self._claims.connect() as connection:
            rows = connection.execute(asked.order_by(OFFERS.c.place).limit(_FIRST)).all()
        drawn = random.sample(rows, min(len(rows), _SOME))
        return [(TrialSpec.from_dict(json.loads(row.spec)), row.label) for row in drawn]

    def count(self) -> int:
        """How many are offered, those in training included."""
        with self._claims.connect() as connection:
            return int(connection.execute(sa.select(sa.func.count()).where(self._own)).scalar_one())

    def withdrawal(self, key: str) -> sa.Delete:
        """Return the statement that takes back a trial, for the transaction that ends its claim."""
        return OFFERS.delete().where(self._own, OFFERS.c.key == key)

    def withdraw(self, key: str) -> None:
        """Take back a trial that another study has recorded."""
        with self._claims.connect() as connection:
            connection.execute(self.withdrawal(key))
