"""The losses of a step: whose vectors, against which candidates, over all ranks."""
