"""First stage: raw files become clean, typed events, items and users; bad rows go to quarantine."""
