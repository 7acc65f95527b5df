"""Fifth stage: vectors for items and users, only where inputs changed."""
