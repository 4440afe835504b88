"""One base for every part of a recipe in, frozen models that refuse unknown keys out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from mdico_cube.errors import MdicoError
from mdico_cube.period import Period

FORMS = {
    (COLOR := "^#[0-9a-fA-F]{6}$"): "must be a colour of six hexadecimal digits, such as #2e7d32",
    (NAME := "^[A-Za-z0-9][A-Za-z0-9._-]*$"): "must be of letters, digits, points, dashes and underscores",
    (DEVICE := "^(auto|cpu|cuda(:[0-9]+)?)$"): "must be auto, cpu, cuda or the number of a card, such as cuda:1",
}
"""Pattern of a text -> what a person is told who wrote another."""
Share = Annotated[float, Field(ge=0, le=1)]
Day = Annotated[str, BeforeValidator(lambda value: day_text(value))]


class Section(BaseModel):
    """A part of a recipe: frozen, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


def no_twice(values: Sequence[object]) -> None:
    """Refuse a list that names something twice."""
    twice = [str(value) for value, count in Counter(values).items() if count > 1]
    if twice:
        raise ValueError(f"names {', '.join(twice)} twice: name each once")


def day_text(value: object) -> str:
    """A day or month as a recipe writes it, checked."""
    text = str(value)
    try:
        Period(text, text).steps()
    except MdicoError as error:
        raise ValueError(str(error).removeprefix("period: ").removesuffix(".")) from error
    return text
