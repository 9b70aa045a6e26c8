"""The ledger of opened test splits."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rankexp.canonical_json import is_key
from rankexp.record.files import ForeignRecordError, inside, parse_file, pretty_json, write_once
from rankexp.record.json_shape import shaped_json
from rankexp.record.shapes import Opening


class TestLedger:
    """Who opened which test split, so that each is opened once over all studies of a workspace.

    Args:
        workspace: The workspace; the ledger is its folder ``test_ledger/``.
    """

    __test__ = False  # a name that pytest would collect

    def __init__(self, workspace: Path) -> None:
        self.workspace = Path(workspace)
        self.root = self.workspace / "test_ledger"

    def open(self, fingerprint: str, study: str, keys: Sequence[str], *, anew: bool = False) -> bool:
        """Enter an opening and say whether these trials may be scored on the split.

        Args:
            fingerprint: Fingerprint of the texts to test on.
            study: Name of the study that asks.
            keys: Content keys of the trials to score.
            anew: Whether they are trained with new seeds after the first opening, which is entered beside it, once too.

        Returns:
            True for the first to ask, and for whoever asks for the very same trials again.
        """
        path = self._path(fingerprint, anew=anew)
        entry = {"study": study, "keys": sorted(keys)}
        if write_once(path, pretty_json(entry).encode()):
            return True
        return bool(self.entry(fingerprint, anew=anew)["keys"] == entry["keys"])

    def entry(self, fingerprint: str, *, anew: bool = False) -> dict[str, Any]:
        """Read who opened the split, or opened it for new seeds; empty if nobody did.

        Raises:
            DamagedRecordError: The entry cannot be read.
        """
        path = self._path(fingerprint, anew=anew)
        return parse_file(path, lambda data: shaped_json(Opening, data)) if os.path.lexists(path) else {}

    def _path(self, fingerprint: str, *, anew: bool) -> Path:
        if not is_key(fingerprint):
            raise ForeignRecordError(
                f"{self.root} holds no entry {fingerprint!r:.100}; a fingerprint is 20 hex digits."
            )
        return inside(self.root, self.workspace) / f"{fingerprint}{'-anew' * anew}.json"
