"""Tasks: data, its four splits, and the score of each example."""
