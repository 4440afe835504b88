"""Every modality in, one head over the mean embedding of every subset out: FCoM-av."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mdico_cube.batch import Batch, hide
from mdico_cube.colearn.dsensd import PixelLayerNorm
from mdico_cube.colearn.encoders.registry import build_encoder
from mdico_cube.colearn.fusion import share_head
from mdico_cube.colearn.inputs import Normalise
from mdico_cube.colearn.mdico import mean_over
from mdico_cube.colearn.method import CoLearner, MethodCard, PixelLinear, supervised
from mdico_cube.colearn.subsets import every_subset, masked_mean, observed
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import ColearnSection
from mdico_cube.spec import InputSpec

_MOST = 8  # modalities: 255 subsets


class FCoMPath(nn.Module):
    """z = LayerNorm(E(x)), logits = P(z); P is the same for every modality and every subset."""

    def __init__(self, spec: InputSpec, classes: int, section: ColearnSection) -> None:
        super().__init__()
        self.inputs = Normalise(spec)
        self.encoder = build_encoder(spec, section.encoder)
        self.norm = PixelLayerNorm(section.encoder.width)
        self.head = PixelLinear(section.encoder.width, classes)

    def embed(self, images: Tensor, valid: Tensor) -> Tensor:
        """(B, T, C, H, W) physical values and (B, T, H, W) observed to the embedding (B, d, H, W)."""
        embedding: Tensor = self.norm(self.encoder(self.inputs(images, valid), valid))
        return embedding

    def forward(self, images: Tensor, valid: Tensor) -> Tensor:
        """(B, T, C, H, W) physical values and (B, T, H, W) observed to logits (B, K, H, W)."""
        logits: Tensor = self.head(self.embed(images, valid))
        return logits


class FCoMAverage(CoLearner):
    """All combinations of modalities, averaged features (FCoM-av, Neurocomputing 2025; form as in the public code).

    Encode once, average the embeddings of each of the 2^M - 1 subsets S, one shared head P:
    L = mean over S of l( P(mean over m in S of z_m), y ).
    A subset counts a pixel where one of its modalities was observed, and averages those that were.
    """

    card = MethodCard("FCoM-av", "Mena et al., Neurocomputing, 2025", "mean over all subsets S of l(P(mean_S z_m), y)")

    def __init__(
        self, inputs: dict[str, InputSpec], classes: int, section: ColearnSection, class_weights: Tensor | None
    ) -> None:
        super().__init__(inputs, classes, section, class_weights)
        if len(inputs) > _MOST:
            raise MdicoError(
                f"FCoM-av trains on every subset of the modalities and takes at most {_MOST} of them, came "
                f"{len(inputs)}. Use comiss, which draws subsets."
            )
        self.head = share_head(self)

    @classmethod
    def build_single(cls, spec: InputSpec, classes: int, section: ColearnSection) -> nn.Module:
        """A fresh path of one modality."""
        return FCoMPath(spec, classes, section)

    def fuse(self, names: tuple[str, ...], images: dict[str, Tensor], valid: dict[str, Tensor], here: Tensor) -> Tensor:
        """Logits (B, K, H, W) of the mean embedding."""
        logits: Tensor = self.head(masked_mean([self._embed(m, images[m], valid[m]) for m in names], here))
        return logits

    def learn(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """({"main": scalar}, modality -> logits (B, K, H, W))."""
        embeddings = [self._embed(m, batch.images[m], batch.valid[m]) for m in self.modalities]
        seen = observed(batch.valid, self.modalities)  # (M, B, H, W)
        target = supervised(batch, *self.modalities)
        terms, logits = [], {}
        for subset in every_subset(len(self.modalities)):
            here = torch.stack([seen[i] for i in subset])
            there = here.any(dim=0)
            scores = self.head(masked_mean([embeddings[i] for i in subset], here | ~there))
            goal = hide(target, ~there)
            terms.append(self.criterion(scores, goal))
            if len(subset) == 1:
                logits[self.modalities[subset[0]]] = scores
        return {"main": mean_over(terms)}, logits

    def _embed(self, modality: str, images: Tensor, valid: Tensor) -> Tensor:
        path = self.paths[modality]
        assert isinstance(path, FCoMPath)
        return path.embed(images, valid)
