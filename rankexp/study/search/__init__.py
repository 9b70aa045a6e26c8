"""Everything that knows Optuna: the sampled screen, a search in memory, and what the parameters were worth."""
