"""Measurements: speed against named rivals, quality against published rows."""
