"""A method's name with options behind it in, the method and its changed training section out: `mdico:contrastive=0`."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from mdico_cube.colearn.registry import get_method
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import ColearnSection

OPTIONS = {
    "mdico": "mdico",
    "mdico-plus": "plus",
    "fullco": "fullco",
    "comiss": "fullco",
    "dsensd-plus": "dsensd",
    "timmil-like": "timmil",
    "discom-kd": "discom",
}
"""Method -> part of the colearn section that holds its options."""
ABLATIONS: dict[str, tuple[str, ...]] = {
    "mdico": (
        "independent",
        "mdico",
        "mdico:auxiliary=0",
        "mdico:modality=0",
        "mdico:contrastive=0",
        "mdico:auxiliary=0:modality=0:contrastive=0",
        "mdico:discriminate=shared",
    ),
    "mdico-plus": (
        "independent",
        "mdico-plus",
        "mdico-plus:unlabelled=0",
        "mdico-plus:fused=0",
        "mdico-plus:fused=0:unlabelled=0",
        "mdico-plus:fused=0:teacher=own",
        "mdico-plus:distillation=0",
    ),
    "fullco": ("independent", "fullco", "fullco:contrastive=0", "fullco:modality=0", "fullco:collaboration=0"),
}
"""Method -> itself with each of its parts switched off in turn, and what it is measured against."""


@dataclass(frozen=True)
class Variant:
    """A method, and what differs from its usual options."""

    text: str
    """As it was asked for: "mdico:contrastive=0"."""
    method: str
    changes: tuple[tuple[str, str], ...]

    @property
    def stem(self) -> str:
        """The same as a file name."""
        return self.text.replace(":", "--").replace("=", "-")

    def section(self, base: ColearnSection) -> ColearnSection:
        """The section with this variant's options.

        Raises:
            MdicoError: a method without options, or an option or value it does not have.
        """
        if not self.changes:
            return base
        if self.method not in OPTIONS:
            raise MdicoError(f"{self.text}: {self.method} has no options. Write {self.method} alone.")
        part = OPTIONS[self.method]
        facts = base.model_dump()
        try:
            return ColearnSection.model_validate({**facts, part: {**facts[part], **dict(self.changes)}})
        except ValidationError as error:
            known = ", ".join(facts[part])
            problem = error.errors()[0]
            where = problem["loc"][-1]
            raise MdicoError(f"{self.text}: {where}: {problem['msg']}. Options of {self.method}: {known}.") from error


def parse_variant(text: str) -> Variant:
    """`METHOD` or `METHOD:OPTION=VALUE:OPTION=VALUE`.

    Raises:
        MdicoError: an unknown method, or a part that is no OPTION=VALUE.
    """
    method, *parts = text.split(":")
    get_method(method)
    changes = []
    for part in parts:
        option, equals, value = part.partition("=")
        if not (option and equals and value):
            raise MdicoError(f"{text}: {part!r} is no option. Write METHOD:OPTION=VALUE, such as mdico:contrastive=0.")
        changes.append((option, value))
    return Variant(text, method, tuple(changes))


def ablation(method: str) -> tuple[str, ...]:
    """The variants that show what each part of a method brings.

    Raises:
        MdicoError: a method without parts to switch off.
    """
    get_method(method)
    if method not in ABLATIONS:
        raise MdicoError(f"{method} has no parts to switch off. Use one of: {', '.join(ABLATIONS)}.")
    return ABLATIONS[method]
