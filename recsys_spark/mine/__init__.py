"""Hard negatives: what an encoder ranks high for a user who had nothing to do with it."""
