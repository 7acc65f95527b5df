"""All tests: unit (no Spark), property, spark, distributed, golden, e2e."""
