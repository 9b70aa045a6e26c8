"""What a user may configure: typed, checked once, here.

Hydra composes plain values; :func:`rankexp.options.parse` turns them into frozen dataclasses or says in one
sentence what is wrong. Below this package only values are passed on.
"""

from rankexp.config.groups import LEAST_SEEDS, DecideConfig, ModelConfig
from rankexp.config.search import SearchConfig
from rankexp.config.study import NO_QUESTION, OF_WORKER, StudyConfig

__all__ = [
    "LEAST_SEEDS",
    "NO_QUESTION",
    "OF_WORKER",
    "DecideConfig",
    "ModelConfig",
    "SearchConfig",
    "StudyConfig",
]
