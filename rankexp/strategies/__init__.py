"""Strategies: which trials to run next, from the results so far."""
