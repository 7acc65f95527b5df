"""Sixth stage: score with all partners, fuse, cut to K, fall back, explain."""
