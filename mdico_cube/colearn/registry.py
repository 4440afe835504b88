"""A method's name in, its class out. One line here adds another."""

from __future__ import annotations

from difflib import get_close_matches

from mdico_cube.colearn.independent import Independent
from mdico_cube.colearn.mdico import MDiCo
from mdico_cube.colearn.method import CoLearner
from mdico_cube.errors import MdicoError

METHODS: dict[str, type[CoLearner]] = {
    "independent": Independent,
    "mdico": MDiCo,
}


def get_method(name: str) -> type[CoLearner]:
    """The class of a method.

    Raises:
        MdicoError: no method of that name; the text gives the closest one.
    """
    if name in METHODS:
        return METHODS[name]
    close = get_close_matches(name.lower(), METHODS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"use one of: {', '.join(METHODS)}."
    raise MdicoError(f"unknown method {name!r}, {hint}")
