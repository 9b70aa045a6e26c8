"""Scorers: how good what a model wrote is, given what it was asked and what was to be written; one file each."""
