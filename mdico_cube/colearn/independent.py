"""One encoder and one head per modality, nothing shared: what a sensor learns without the others."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mdico_cube.batch import Batch
from mdico_cube.colearn.chains import Chain, encoder_layers
from mdico_cube.colearn.encoders.registry import build_encoder
from mdico_cube.colearn.inputs import Normalise
from mdico_cube.colearn.method import CoLearner, MethodCard, PixelLinear, supervised
from mdico_cube.recipe import ColearnSection
from mdico_cube.spec import InputSpec


class IndependentPath(nn.Module):
    """logits = P(E(x))."""

    def __init__(self, spec: InputSpec, classes: int, section: ColearnSection) -> None:
        super().__init__()
        self.inputs = Normalise(spec)
        self.encoder = build_encoder(spec, section.encoder)
        self.head = PixelLinear(section.encoder.width, classes)

    def embed(self, images: Tensor, valid: Tensor) -> Tensor:
        """(B, T, C, H, W) physical values and (B, T, H, W) observed to the embedding (B, d, H, W)."""
        embedding: Tensor = self.encoder(self.inputs(images, valid), valid)
        return embedding

    def forward(self, images: Tensor, valid: Tensor) -> Tensor:
        """(B, T, C, H, W) physical values and (B, T, H, W) observed to logits (B, K, H, W)."""
        logits: Tensor = self.head(self.embed(images, valid))
        return logits

    def chain(self) -> Chain | None:
        """The path as data; see Chained."""
        layers = encoder_layers(self.encoder)
        return None if layers is None else Chain(self.inputs, (layers,), (self.head,))


class Independent(CoLearner):
    """The baseline: L = mean_m l(P_m(E_m(x_m)), y) with class-balanced cross-entropy l; no term joins modalities.

    `fused` is the ensemble of these models: the mean of their logits.
    """

    card = MethodCard("Independent", "baseline; fused = ensemble by the mean of logits", "mean_m l(P_m(E_m(x_m)), y)")

    @classmethod
    def build_single(cls, spec: InputSpec, classes: int, section: ColearnSection) -> nn.Module:
        """A fresh path of one modality."""
        return IndependentPath(spec, classes, section)

    def learn(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """({"main": scalar}, modality -> logits (B, K, H, W))."""
        logits = self(batch.images, batch.valid)
        terms = [self.criterion(logits[m], supervised(batch, m)) for m in self.modalities]
        return {"main": torch.stack(terms).mean()}, logits
