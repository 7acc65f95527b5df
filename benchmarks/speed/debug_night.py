"""How long a whole night on the debug fixture takes, from a cold start: ``python -m benchmarks.speed.debug_night [--full]``.

200 users, 150 items, a text encoder of 2 layers and 32 wide. Without ``--full`` each stage runs at its thinnest. Ends
with one JSON line: seconds from this process's start to the published night, of which the session, and per step.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

START = time.monotonic()

from recsys_spark import process  # noqa: E402
from recsys_spark.cli.opening import begin, session  # noqa: E402
from recsys_spark.config import parse_config  # noqa: E402
from tests.debug_data import debug_config, thin_config, write_debug_data  # noqa: E402


def main() -> None:
    """Run one night in a folder of its own and print what took how long."""
    full = "--full" in sys.argv[1:]
    process.start()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        settings = (debug_config if full else thin_config)(write_debug_data(home / "data"), home / "warehouse")
        config = parse_config(settings)
        begin(config, loads_workers=True)
        from recsys_spark.order import run_night

        with session(config) as spark:
            moments = [("session", time.monotonic())]
            run_night(config, spark, lambda stage, namespace: moments.append((f"{stage} {namespace}", time.monotonic())))
    steps = {name: round(now - before, 1) for (_, before), (name, now) in zip([("", START), *moments], moments, strict=False)}
    print(json.dumps({"row": "debug-night", "full": full, "seconds": round(moments[-1][1] - START, 1), "steps": steps}))


if __name__ == "__main__":
    main()
