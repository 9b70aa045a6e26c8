"""The base model: found, built, and what its files say."""
