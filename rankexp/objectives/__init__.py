"""What a batch is, its loss, and the scores of each example: one module a kind of task."""
