"""Tables of scores with given means."""

import numpy as np


def table(means, seeds=5, examples=400, seed_sd=0.003, noise=0.05, stream=0):
    """Real-valued scores whose rank means are exactly ``means``."""
    rng = np.random.default_rng(stream)
    scores = seed_sd * rng.standard_normal((len(means), seeds, 1))
    scores = scores + rng.standard_normal(examples) + noise * rng.standard_normal((len(means), seeds, examples))
    return scores - scores.mean(axis=(1, 2), keepdims=True) + np.array(means)[:, None, None]
