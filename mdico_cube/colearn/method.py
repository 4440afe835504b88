"""A batch of every modality in, logits and losses out: the contract every co-learning method keeps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from mdico_cube.batch import Batch, hide
from mdico_cube.colearn.inputs import at_dates
from mdico_cube.colearn.subsets import masked_mean, observed, presence
from mdico_cube.colearn.tasks import Scale, follow, goal_of, opinion, supervised_loss
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import ColearnSection
from mdico_cube.spec import InputSpec

FUSED = "fused"
"""Name of the one output of a method that cannot map with one modality alone."""


@dataclass(frozen=True, slots=True)
class MethodCard:
    """What a person should know of a method before choosing it."""

    title: str
    """What people call it."""
    paper: str
    """Where it comes from."""
    formula: str
    """Its loss in one line; the docstring of the method explains the letters."""


class CoLearner(nn.Module, ABC):
    """Learns from several modalities at once; afterwards each predicts alone, or any subset together.

    A method is one subclass that builds the path of one modality (`build_single`) and says what a batch costs
    (`learn`). Trainer, bundle and predictor need nothing else. The laws: `forward(...)[m] == single(m)(...)` for a
    method that maps alone, and `fused({m: x}) == single(m)(x)` where it also takes any subset.
    """

    card: ClassVar[MethodCard]
    """Title, paper and formula."""
    maps_alone: ClassVar[bool] = True
    """Whether `single(modality)` exists; otherwise the method needs every modality and has no bundles."""
    any_subset: ClassVar[bool] = True
    """Whether `fused` predicts from any non-empty subset of the modalities; otherwise it needs all of them."""
    learns_unlabelled: ClassVar[bool] = False
    """Whether pixels without a label teach it anything: only then are the samples' unlabelled windows handed over."""
    class_weights: Tensor | None
    """(K,) weights of the supervised loss, or None for equal weights."""
    scale: Scale = Scale()
    """Of the training values, in a regression: targets are z-scored with it."""

    def __init__(
        self, inputs: dict[str, InputSpec], classes: int, section: ColearnSection, class_weights: Tensor | None
    ) -> None:
        super().__init__()
        if len(inputs) < 2:
            raise MdicoError(
                f"co-learning needs at least two modalities, came {', '.join(inputs) or 'none'}: "
                "add another one to colearn.modalities."
            )
        if classes < 2 and section.task.kind == "classes":
            raise MdicoError(f"co-learning needs at least two classes, came {classes}: add classes to labels.classes.")
        self.section, self.classes = section, classes
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.paths = nn.ModuleDict({m: self.build_single(spec, classes, section) for m, spec in inputs.items()})

    @classmethod
    @abstractmethod
    def build_single(cls, spec: InputSpec, classes: int, section: ColearnSection) -> nn.Module:
        """A fresh path of one modality, with the same state-dict names as `single(modality)`.

        For a method that cannot map alone: what one modality goes through before it meets the others.
        """

    @abstractmethod
    def learn(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(losses by name, logits by output) of one labelled batch in one pass; losses are already weighted."""

    def criterion(self, outputs: Tensor, target: Tensor) -> Tensor:
        """l(outputs, y): the supervised loss of the task, see `supervised_loss`."""
        return supervised_loss(self.section.task, outputs, target, self.class_weights)

    def distil(self, student: Tensor, teacher: Tensor, temperature: float, where: Tensor) -> Tensor:
        """What it costs to differ from a teacher, which gets no gradient, where the mask (B, H, W) says so."""
        goal = opinion(self.section.task, teacher, temperature)
        return follow(self.section.task, student, goal, temperature, where)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modality names in the order of the inputs; position m is the modality's number."""
        return tuple(self.paths)

    @property
    def outputs(self) -> tuple[str, ...]:
        """What `forward` and `learn` give logits of: every modality alone, or only "fused"."""
        return self.modalities if self.maps_alone else (FUSED,)

    @contextmanager
    def prepared(self, batch: Batch) -> Iterator[Batch]:
        """The batch as `learn` takes it: one grid, `goal_of` its target; in the block its own dates are read."""
        with at_dates(self.paths, batch.dates):
            ready = batch.on_one_grid()
            if ready.target is not None:
                ready = ready.replace(target=goal_of(self.section.task, ready.target, self.classes, self.scale))
            yield ready

    def forward(self, images: dict[str, Tensor], valid: dict[str, Tensor]) -> dict[str, Tensor]:
        """Output -> logits (B, K, H, W) from images (B, T, C, H, W) in physical units and valid (B, T, H, W)."""
        if not self.maps_alone:
            return {FUSED: self.fused(images, valid)}
        return {m: path(images[m], valid[m]) for m, path in self.paths.items()}

    def fused(self, images: dict[str, Tensor], valid: dict[str, Tensor]) -> Tensor:
        """Logits (B, K, H, W) from the modalities handed over, together.

        What is not among the keys is absent everywhere; of what is, a modality without any observed step at a pixel is
        absent there and has no influence. A pixel where all are absent takes every modality at its mean.

        Args:
            images: modality -> (B, T, C, H, W) in physical units, at least one.
            valid: modality -> (B, T, H, W), True = observed.

        Raises:
            MdicoError: no modality, one that was not learned from, or a lacking one where the method needs all.
        """
        names = self._subset(images)
        return self.fuse(names, images, valid, presence(valid, names))

    def fuse(self, names: tuple[str, ...], images: dict[str, Tensor], valid: dict[str, Tensor], here: Tensor) -> Tensor:
        """Logits (B, K, H, W) of these modalities where `here` (M, B, H, W) says so: the mean of their logits.

        Methods that fuse in another way replace this.
        """
        return masked_mean([self.paths[m](images[m], valid[m]) for m in names], here)

    def target(self, batch: Batch, output: str) -> Tensor:
        """(B, H, W) target an output is scored with."""
        return supervised(batch, *(self.modalities if output == FUSED else (output,)))

    def _subset(self, images: dict[str, Tensor]) -> tuple[str, ...]:
        unknown = [name for name in images if name not in self.paths]
        if unknown or not images:
            raise MdicoError(
                f"no model of {', '.join(map(repr, unknown)) or 'nothing'}: this one was trained with "
                f"{', '.join(self.paths)}. Hand over some of these."
            )
        names = tuple(m for m in self.paths if m in images)
        if not self.any_subset and len(names) < len(self.paths):
            lacking = ", ".join(m for m in self.paths if m not in images)
            raise MdicoError(f"{self.card.title} needs every modality, {lacking} is lacking. Use another method.")
        return names

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Name -> scalar, already weighted: the trainer minimises their sum."""
        with self.prepared(batch) as ready:
            return self.learn(ready)[0]

    def single(self, modality: str) -> nn.Module:
        """The model of one modality alone, sharing these weights.

        It maps images (B, T, C, H, W) in physical units and valid (B, T, H, W) to logits (B, K, H, W).

        Raises:
            MdicoError: the modality was not learned from, or the method cannot map with one modality.
        """
        if modality not in self.paths:
            raise MdicoError(f"no model of {modality!r}: this one was trained with {', '.join(self.paths)}.")
        if not self.maps_alone:
            raise MdicoError(f"{self.card.title} cannot map with {modality} alone. Use a method that can, as mdico.")
        return self.paths[modality]


class PixelLinear(nn.Linear):
    """One Linear for every pixel: (B, in, H, W) to (B, out, H, W)."""

    def forward(self, input: Tensor) -> Tensor:
        """The same affine map at every pixel."""
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


def supervised(batch: Batch, *modalities: str) -> Tensor:
    """(B, H, W) target for the losses of these modalities: unlabelled also where none of them was ever observed."""
    if batch.target is None:
        raise MdicoError("this batch has no labels: training and validation need Batch.target.")
    return hide(batch.target, ~observed(batch.valid, modalities).any(dim=0))


def present(batch: Batch, modality: str) -> Tensor:
    """(B, H, W) bool: the modality was observed at this pixel in at least one step."""
    return batch.valid[modality].any(dim=1)
