"""The rows of every step: read, planned, changed at random and made into batches."""
