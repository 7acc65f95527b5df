"""Published protocols run with this project's own counting and metrics, to prove both."""
