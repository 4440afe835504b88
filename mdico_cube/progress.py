"""One way to show progress: a bar on a terminal or in a notebook, sparse lines in a log."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")
console = Console(stderr=True, highlight=False)
"""Progress and messages go to standard error, results to standard output."""

_LINES = 4  # lines per task in a log
_REFRESH = 0.2  # seconds between two pictures of a bar in a notebook
_MINUTES = 5  # and one line at least every so often


class Meter:
    """How far a stage is: things done and failed, bytes, rate and the time that is left."""

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total = title, total
        self.done = self.failed = self.size = 0
        self._start = self._said = time.monotonic()
        self._bar: tuple[Progress, Any] | None = None
        self._page: Any = None

    def add(self, size: int = 0, failed: bool = False) -> None:
        """One more is done.

        Args:
            size: bytes written.
            failed: it could not be done.
        """
        self.done, self.failed, self.size = self.done + 1, self.failed + failed, self.size + size
        if self._bar is not None:
            progress, task = self._bar
            progress.update(task, advance=1, facts=self._facts())
        elif self._page is not None:
            if self.done >= self.total or time.monotonic() - self._said > _REFRESH:
                self._said = time.monotonic()
                self._page.update(self._markup())
        elif not console.quiet and self._is_due():
            self._said = time.monotonic()
            say(f"{self.title}: {self.done}/{self.total} ({', '.join(self._times() + self._parts())})")

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._start

    @property
    def left(self) -> float:
        """Seconds to go at the rate so far."""
        return self.seconds / max(1, self.done) * (self.total - self.done)

    def show_on(self, progress: Progress) -> None:
        """Draw it as a bar from now on."""
        self._bar = (progress, progress.add_task(self.title, total=self.total, facts=""))

    def show_in_notebook(self) -> None:
        """Draw it below the cell from now on: one output that is replaced, which needs no widgets."""
        display = import_module("IPython.display")
        self._page = display.display(self._markup(), display_id=True)

    def _markup(self) -> Any:
        text = f"{self.title}: {self.done}/{self.total} ({', '.join(self._times() + self._parts())})"
        bar = f'<progress value="{self.done}" max="{self.total}" style="width:14em"></progress> <code>{text}</code>'
        return _Shown(text, bar)

    def _is_due(self) -> bool:
        quarter = self.done * _LINES // self.total > (self.done - 1) * _LINES // self.total
        return quarter or time.monotonic() - self._said > 60 * _MINUTES

    def _times(self) -> list[str]:
        return [f"{self.seconds:.0f} s", *([f"{span(self.left)} left"] if self.done < self.total else [])]

    def _parts(self) -> list[str]:
        rate = self.done / max(self.seconds, 1e-9)
        parts = [f"{rate:.1f}/s" if rate >= 1 else f"{60 * rate:.1f}/min"]
        if self.size:
            parts.append(f"{size_text(self.size)}, {size_text(self.size / max(self.seconds, 1e-9))}/s")
        if self.failed:
            parts.append(f"{self.failed} failed")
        return parts

    def _facts(self) -> str:
        return ", ".join(self._parts())


class _Shown:
    """A line for whatever shows notebooks: with a bar in HTML, by itself elsewhere."""

    def __init__(self, text: str, html: str) -> None:
        self._text, self._html = text, html

    def __repr__(self) -> str:
        return self._text

    def _repr_html_(self) -> str:
        return self._html


@contextmanager
def meter(title: str, total: int) -> Iterator[Meter]:
    """A meter that is shown: as a bar on a terminal or in a notebook, in sparse lines elsewhere."""
    gauge = Meter(title, total)
    if console.quiet or total == 0 or not (console.is_terminal or console.is_jupyter):
        yield gauge
        return
    if console.is_jupyter:
        gauge.show_in_notebook()
        yield gauge
        return
    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[facts]}"),
    )
    with Progress(*columns, console=console) as progress:
        gauge.show_on(progress)
        yield gauge


def track(things: Iterable[T], title: str, total: int) -> Iterator[T]:
    """Pass the things on while showing how far it is."""
    with meter(title, total) as gauge:
        for thing in things:
            yield thing
            gauge.add()


def say(message: str) -> None:
    """One line for the person watching."""
    console.print(message, soft_wrap=True)


def size_text(count: float) -> str:
    """Bytes for people: 1.5 GB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            break
        count /= 1000
    return f"{count:.3g} {unit}"


def span(seconds: float) -> str:
    """A duration for people: 42 s, 12 min, 3.5 h, 2.1 days."""
    for unit, length, until in (("s", 1, 90), ("min", 60, 5400), ("h", 3600, 48 * 3600)):
        if seconds < until:
            return f"{seconds / length:.3g} {unit}" if unit == "h" else f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86400:.3g} days"
