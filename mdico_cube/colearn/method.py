"""A batch of every modality in, logits and losses out: the contract every co-learning method keeps."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from mdico_cube.batch import UNLABELLED, Batch
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import ColearnSection
from mdico_cube.spec import InputSpec


class CoLearner(nn.Module, ABC):
    """Learns from several modalities at once; afterwards each predicts alone.

    A method is one subclass that builds the path of one modality (`build_single`) and says what a batch costs
    (`learn`). Trainer, bundle and predictor need nothing else. The law: `forward(...)[m] == single(m)(...)`.
    """

    class_weights: Tensor | None
    """(K,) weights of the class-balanced cross-entropy, or None for equal weights."""

    def __init__(
        self, inputs: dict[str, InputSpec], classes: int, section: ColearnSection, class_weights: Tensor | None
    ) -> None:
        super().__init__()
        if len(inputs) < 2:
            raise MdicoError(
                f"co-learning needs at least two modalities, came {', '.join(inputs) or 'none'}: "
                "add another one to colearn.modalities."
            )
        if classes < 2:
            raise MdicoError(f"co-learning needs at least two classes, came {classes}: add classes to labels.classes.")
        self.section = section
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.paths = nn.ModuleDict({m: self.build_single(spec, classes, section) for m, spec in inputs.items()})

    @classmethod
    @abstractmethod
    def build_single(cls, spec: InputSpec, classes: int, section: ColearnSection) -> nn.Module:
        """A fresh path of one modality, with the same state-dict names as `single(modality)`."""

    @abstractmethod
    def learn(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(losses by name, logits by modality) of one labelled batch in one pass; losses are already weighted."""

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modality names in the order of the inputs; position m is the modality's number."""
        return tuple(self.paths)

    def forward(self, images: dict[str, Tensor], valid: dict[str, Tensor]) -> dict[str, Tensor]:
        """Modality -> logits (B, K, H, W) from images (B, T, C, H, W) in physical units and valid (B, T, H, W)."""
        return {m: path(images[m], valid[m]) for m, path in self.paths.items()}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Name -> scalar, already weighted: the trainer minimises their sum."""
        return self.learn(batch)[0]

    def single(self, modality: str) -> nn.Module:
        """The model of one modality alone, sharing these weights.

        It maps images (B, T, C, H, W) in physical units and valid (B, T, H, W) to logits (B, K, H, W).

        Raises:
            MdicoError: the modality was not learned from.
        """
        if modality not in self.paths:
            raise MdicoError(f"no model of {modality!r}: this one was trained with {', '.join(self.paths)}.")
        return self.paths[modality]


class PixelLinear(nn.Linear):
    """One Linear for every pixel: (B, in, H, W) to (B, out, H, W)."""

    def forward(self, input: Tensor) -> Tensor:
        """The same affine map at every pixel."""
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


def supervised(batch: Batch, modality: str) -> Tensor:
    """(B, H, W) target for one modality's losses: -1 also where the modality was never observed."""
    if batch.target is None:
        raise MdicoError("this batch has no labels: training and validation need Batch.target.")
    return batch.target.masked_fill(~present(batch, modality), UNLABELLED)


def present(batch: Batch, modality: str) -> Tensor:
    """(B, H, W) bool: the modality was observed at this pixel in at least one step."""
    return batch.valid[modality].any(dim=1)
