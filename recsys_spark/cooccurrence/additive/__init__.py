"""Counts kept up to date from what has changed in the log: a state to which batches of signed contributions are added."""
