"""Seventh stage: holdouts, metrics with intervals, and the gate to champion."""
