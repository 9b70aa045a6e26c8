"""The mirror of studies in MLflow: a view that can be rebuilt from the record, and never a reason to stop.

The only part of rankexp that knows MLflow, which is imported late: it takes two seconds.
"""

from __future__ import annotations

from rankexp.tracking.mirror import MlflowTracker, open_tracker
from rankexp.tracking.place import find_store, name_store, said, shown
from rankexp.tracking.protocol import LiveRun, NullTracker, Tracker, TrackingError
from rankexp.tracking.ui import open_ui

__all__ = [
    "LiveRun",
    "MlflowTracker",
    "NullTracker",
    "Tracker",
    "TrackingError",
    "find_store",
    "name_store",
    "open_tracker",
    "open_ui",
    "said",
    "shown",
]
