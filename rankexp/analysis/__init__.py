"""Pure functions of results: the decision, its power, and a study as values. No torch, no Hydra."""
