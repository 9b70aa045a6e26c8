"""The record on disk: trials, studies, the ledger of opened tests, and how files are read and written."""
