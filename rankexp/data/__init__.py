"""Data of users: tables in several formats, labels, splits, and the account of every row."""
