"""The commands of ``rankexp``: one module each, found by its name; it defines ``COMMAND``."""
