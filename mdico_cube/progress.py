"""One way to show progress: a bar on a terminal or in a notebook, sparse lines in a log."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")
console = Console(stderr=True, highlight=False)
"""Progress and messages go to standard error, results to standard output."""

_LINES = 4  # lines per task in a log


def track(things: Iterable[T], title: str, total: int) -> Iterator[T]:
    """Pass the things on while showing how far it is."""
    if console.quiet or total == 0:
        yield from things
    elif console.is_terminal or console.is_jupyter:
        columns = (
            TextColumn("{task.description:<28}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as bar:
            yield from bar.track(things, total=total, description=title)
    else:
        yield from _lines(things, title, total)


def _lines(things: Iterable[T], title: str, total: int) -> Iterator[T]:
    start = time.monotonic()
    for done, thing in enumerate(things, start=1):
        yield thing
        if done * _LINES // total > (done - 1) * _LINES // total:
            say(f"{title}: {done}/{total} ({time.monotonic() - start:.0f} s)")


def say(message: str) -> None:
    """One line for the person watching."""
    console.print(message, soft_wrap=True)
