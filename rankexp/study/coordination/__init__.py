"""How the workers of a study share it: the database, claims on trials, the leader and its offers."""
