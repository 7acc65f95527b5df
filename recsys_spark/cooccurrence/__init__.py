"""Second stage: item x item counts and association measures."""
