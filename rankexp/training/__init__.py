"""Training one trial: the loop, the optimizer, the evaluation."""
