"""Lists put in order once more, so that they vary and keep within limits."""
