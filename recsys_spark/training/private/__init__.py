"""Training with differential privacy: each user's gradient is shortened, and noise hides whether it was there."""
