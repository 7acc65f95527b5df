"""Tests of kind: spark."""
