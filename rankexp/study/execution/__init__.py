"""How asked trials are trained: in which order, by whom, and in which packs."""
