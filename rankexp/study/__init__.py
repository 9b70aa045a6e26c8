"""A study: the protocol that screens, decides and confirms, its Optuna search, its claims."""
