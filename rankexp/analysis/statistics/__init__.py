"""How scores become a verdict."""
