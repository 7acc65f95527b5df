"""Fourth stage: Petastorm feed, data-parallel loop, checkpoints; no Spark but for the launcher."""
