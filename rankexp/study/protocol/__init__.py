"""What a study does, step by step: screen, decide, confirm, contest."""
