"""One exception for everything a user can mend, and the closest known name for the sentence it carries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

Found = TypeVar("Found")


class MdicoError(Exception):
    """A fault the user can mend. Its text is one clear sentence or two; the command line prints it and exits with 2."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question to end a sentence with: the known name closest to an unknown one, or nothing."""
    names = {one.lower(): one for one in known}
    close = get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    return f" Did you mean {names[close[0]]!r}?" if close else ""


def some(count: int, noun: str) -> str:
    """A number of things in words: "1 shard", "1,204 shards"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def look_up(kind: str, name: str, table: Mapping[str, Found]) -> Found:
    """What stands under a name in a registry.

    Args:
        kind: what the registry holds, for the message: "method", "encoder".
        name: as the user wrote it.
        table: name -> entry.

    Raises:
        MdicoError: no entry of that name; the text gives the closest one, or all of them.
    """
    if name in table:
        return table[name]
    hint = did_you_mean(name, table).lower().strip() or f"use one of: {', '.join(table)}."
    raise MdicoError(f"unknown {kind} {name!r}, {hint}")
