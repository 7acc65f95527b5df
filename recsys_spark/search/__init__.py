"""Nearest vectors by inner product or cosine: exact, approximate with measured recall, and on short codes."""
