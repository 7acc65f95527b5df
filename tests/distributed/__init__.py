"""Tests of kind: distributed."""
