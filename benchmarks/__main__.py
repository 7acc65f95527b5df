"""``python -m benchmarks [NAME ...] [--list] [--small]``."""

from benchmarks.runner import main

if __name__ == "__main__":
    raise SystemExit(main())
