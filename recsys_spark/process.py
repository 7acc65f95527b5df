"""How a process of ours starts and ends: quiet libraries, death with its parent, errors as one line."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import signal
import sys
import warnings
from collections.abc import Iterator

from recsys_spark.errors import RecsysError
from recsys_spark.log import configure

_PR_SET_PDEATHSIG = 1
_INTERRUPTED = 130  # as shells have it
# threads that wait for each other sleep: on a core that others use too, spinning ones keep off whoever they wait for
WAIT_POLICY = "OMP_WAIT_POLICY"
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    WAIT_POLICY: "PASSIVE",
}


def start() -> None:
    """Set up logging, mute library noise and keep waiting threads from spinning; call first in every entry point."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    configure(os.environ.get("RECSYS_SPARK_LOG", "INFO"), json=os.environ.get("RECSYS_SPARK_LOG_FORMAT") == "json")


def die_with_parent() -> None:
    """On Linux, end when the process that started us ends: a scheduler's time-out kills only the JVM."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def end_at_exit() -> None:
    """Let this process, which has done all its work, end with 0 before Python takes itself down.

    Gloo's threads may hold the last collective's tensors until then, and releasing those in an interpreter that is going
    aborts the process (pytorch/pytorch pull request 179291): a rank that had finished would count as lost.
    """
    atexit.register(_end)


def _end() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(0)


@contextlib.contextmanager
def errors_as_lines() -> Iterator[None]:
    """Turn our errors, and being interrupted, into one line on stderr and an exit code; anything else keeps its traceback."""
    try:
        yield
    except RecsysError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted: what is finished stands, the same command goes on from there", file=sys.stderr)
        sys.exit(_INTERRUPTED)
