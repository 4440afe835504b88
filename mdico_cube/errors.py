"""One exception for everything a user can mend, and the closest known name for the sentence it carries."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class MdicoError(Exception):
    """A fault the user can mend. Its text is one clear sentence or two; the command line prints it and exits with 2."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question to end a sentence with: the known name closest to an unknown one, or nothing."""
    names = {one.lower(): one for one in known}
    close = get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    return f" Did you mean {names[close[0]]!r}?" if close else ""
