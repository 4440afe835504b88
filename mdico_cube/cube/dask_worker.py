"""A local Dask worker in, the same deaf to Ctrl-C out: the builder that started it hears it and closes it in order."""

from __future__ import annotations

import logging
import signal
from typing import Any


def dask_setup(worker: Any) -> None:
    """Called by Dask in the worker's process when it starts."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger("distributed.worker").setLevel(logging.CRITICAL)  # a scheduler that stops first is no news
