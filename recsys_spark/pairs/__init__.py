"""Third stage: positives, negatives and user sequences for contrastive training."""
