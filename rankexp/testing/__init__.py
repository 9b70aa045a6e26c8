"""Conformance suites: what everything of a kind must fulfil, as test methods to inherit.

A new task, allocator or strategy is tested by a subclass of its suite whose name starts with ``Test``, in a file that
pytest collects.
"""

from rankexp.testing.allocators import AllocatorConformance, MadeEvidence
from rankexp.testing.strategies import StrategyConformance
from rankexp.testing.tasks import ClassificationConformance, TaskConformance

__all__ = [
    "AllocatorConformance",
    "ClassificationConformance",
    "MadeEvidence",
    "StrategyConformance",
    "TaskConformance",
]
