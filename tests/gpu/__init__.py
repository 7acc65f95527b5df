"""Tests of kind: gpu. Each is left out where CUDA sees no GPU."""
