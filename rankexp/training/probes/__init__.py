"""What the frozen model says about where to spend rank."""
