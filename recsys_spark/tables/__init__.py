"""Delta tables: their contracts, the one store that reads and writes them, and what a run may see."""
