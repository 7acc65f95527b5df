"""Item tower, user tower, losses and the package that MLflow loads; no Spark here."""
