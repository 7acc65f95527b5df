"""Between train and embed: fusion weights are chosen on validation and the model becomes a version in the registry."""
