"""Every modality in, one prediction out: fusion of inputs, of features and of decisions, the classic baselines."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mdico_cube.batch import Batch
from mdico_cube.colearn.encoders.registry import build_encoder, make_encoder
from mdico_cube.colearn.independent import IndependentPath
from mdico_cube.colearn.inputs import Normalise
from mdico_cube.colearn.method import FUSED, CoLearner, MethodCard, PixelLinear, supervised
from mdico_cube.colearn.subsets import masked_mean, presence
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import ColearnSection
from mdico_cube.spec import InputSpec

_SOURCE = "baseline; see Mena et al., IEEE JSTARS 17, 2024 for the levels of fusion"


class Fusion(CoLearner):
    """One supervised loss on the fused prediction of all modalities: L = l(F(x_1, ..., x_M), y).

    A method that maps alone also gives the logits of each modality, which no loss of its own has trained.
    """

    def learn(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """({"main": scalar}, output -> logits (B, K, H, W))."""
        fused = self.fused(batch.images, batch.valid)
        loss = self.criterion(fused, supervised(batch, *self.modalities))
        return {"main": loss}, self(batch.images, batch.valid) if self.maps_alone else {FUSED: fused}


class InputFusion(Fusion):
    """Input concatenation: logits = P(E([x_1; ...; x_M])), one encoder over the bands of all modalities.

    A modality without time is repeated at every step. A step counts as observed where any modality with time was.
    """

    card = MethodCard("Input fusion", _SOURCE, "l(P(E([x_1; ...; x_M])), y)")
    maps_alone = False
    any_subset = False

    def __init__(
        self, inputs: dict[str, InputSpec], classes: int, section: ColearnSection, class_weights: Tensor | None
    ) -> None:
        super().__init__(inputs, classes, section, class_weights)
        steps = _common_steps(inputs)
        self.encoder = make_encoder(sum(len(spec.modality.bands) for spec in inputs.values()), steps, section.encoder)
        self.head = PixelLinear(section.encoder.width, classes)

    @classmethod
    def build_single(cls, spec: InputSpec, classes: int, section: ColearnSection) -> nn.Module:
        """Normalisation alone: the modalities meet before the encoder."""
        return Normalise(spec)

    def fuse(self, names: tuple[str, ...], images: dict[str, Tensor], valid: dict[str, Tensor], here: Tensor) -> Tensor:
        """Logits (B, K, H, W) from the bands of all modalities."""
        series = [self.paths[m](images[m], valid[m]) for m in names]
        steps = max(part.shape[1] for part in series)
        stacked = torch.cat([part.expand(-1, steps, -1, -1, -1) for part in series], dim=2)  # (B, T, sum C, H, W)
        seen = torch.stack([valid[m] for m in names if valid[m].shape[1] == steps]).any(dim=0)  # (B, T, H, W)
        logits: Tensor = self.head(self.encoder(stacked, seen))
        return logits


def _common_steps(inputs: dict[str, InputSpec]) -> tuple[str, ...]:
    kinds = {spec.steps for spec in inputs.values() if len(spec.steps) > 1}
    if len(kinds) > 1:
        counts = ", ".join(f"{name} {len(spec.steps)}" for name, spec in inputs.items())
        raise MdicoError(
            f"input fusion needs the same time steps in every modality with time, came {counts}. "
            "Use one of the feature fusions."
        )
    return next(iter(kinds), ("",))


class FeaturePath(nn.Module):
    """z = E(x), without a head."""

    def __init__(self, spec: InputSpec, section: ColearnSection) -> None:
        super().__init__()
        self.inputs = Normalise(spec)
        self.encoder = build_encoder(spec, section.encoder)

    def forward(self, images: Tensor, valid: Tensor) -> Tensor:
        """(B, T, C, H, W) physical values and (B, T, H, W) observed to (B, d, H, W)."""
        embedding: Tensor = self.encoder(self.inputs(images, valid), valid)
        return embedding


class ConcatFusion(Fusion):
    """Feature concatenation: logits = P([E_1(x_1); ...; E_M(x_M)])."""

    card = MethodCard("Feature fusion, concatenation", _SOURCE, "l(P([E_1(x_1); ...; E_M(x_M)]), y)")
    maps_alone = False
    any_subset = False

    def __init__(
        self, inputs: dict[str, InputSpec], classes: int, section: ColearnSection, class_weights: Tensor | None
    ) -> None:
        super().__init__(inputs, classes, section, class_weights)
        self.head = PixelLinear(len(inputs) * section.encoder.width, classes)

    @classmethod
    def build_single(cls, spec: InputSpec, classes: int, section: ColearnSection) -> nn.Module:
        """The encoder alone."""
        return FeaturePath(spec, section)

    def fuse(self, names: tuple[str, ...], images: dict[str, Tensor], valid: dict[str, Tensor], here: Tensor) -> Tensor:
        """Logits (B, K, H, W) from the embeddings of all modalities side by side."""
        logits: Tensor = self.head(torch.cat([self.paths[m](images[m], valid[m]) for m in names], dim=1))
        return logits


class AverageFusion(Fusion):
    """Feature average: logits = P(mean of E_m(x_m) over the modalities that are there), one head for all."""

    card = MethodCard("Feature fusion, average", _SOURCE, "l(P(mean_m E_m(x_m)), y)")

    def __init__(
        self, inputs: dict[str, InputSpec], classes: int, section: ColearnSection, class_weights: Tensor | None
    ) -> None:
        super().__init__(inputs, classes, section, class_weights)
        self.head = share_head(self)

    @classmethod
    def build_single(cls, spec: InputSpec, classes: int, section: ColearnSection) -> nn.Module:
        """Encoder and head; the head is the same for every modality."""
        return IndependentPath(spec, classes, section)

    def fuse(self, names: tuple[str, ...], images: dict[str, Tensor], valid: dict[str, Tensor], here: Tensor) -> Tensor:
        """Logits (B, K, H, W) from the merged embedding."""
        embeddings = {m: _embed(self.paths[m], images[m], valid[m]) for m in names}
        logits: Tensor = self.head(self.merge(embeddings, here))
        return logits

    def merge(self, embeddings: dict[str, Tensor], here: Tensor) -> Tensor:
        """(B, d, H, W) from modality -> (B, d, H, W)."""
        return masked_mean(list(embeddings.values()), here)


class GatedFusion(AverageFusion):
    """Gated features: logits = P(sum_m a_m * z_m), a = softmax over the modalities that are there of Linear_m(z_m).

    One gate per feature [our inference]; a modality alone has the gate 1.
    """

    card = MethodCard("Feature fusion, gated", _SOURCE, "l(P(sum_m softmax_m(G_m z_m) * z_m), y)")

    def __init__(
        self, inputs: dict[str, InputSpec], classes: int, section: ColearnSection, class_weights: Tensor | None
    ) -> None:
        super().__init__(inputs, classes, section, class_weights)
        width = section.encoder.width
        self.gates = nn.ModuleDict({m: PixelLinear(width, width) for m in inputs})

    def merge(self, embeddings: dict[str, Tensor], here: Tensor) -> Tensor:
        """(B, d, H, W) from modality -> (B, d, H, W)."""
        scores = torch.stack([self.gates[m](z) for m, z in embeddings.items()])  # (M, B, d, H, W)
        gates = scores.masked_fill(~here.unsqueeze(2), -torch.inf).softmax(dim=0)
        return (gates * torch.stack(list(embeddings.values()))).sum(dim=0)


class DecisionFusion(Fusion):
    """Decision average, trained together: F = mean of the modalities' logits, L = l(F, y).

    Models trained apart and averaged (an ensemble) are the `fused` of the method independent.
    """

    card = MethodCard("Decision fusion", _SOURCE, "l(mean_m P_m(E_m(x_m)), y)")

    @classmethod
    def build_single(cls, spec: InputSpec, classes: int, section: ColearnSection) -> nn.Module:
        """Encoder and head of one modality."""
        return IndependentPath(spec, classes, section)

    def learn(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """({"main": scalar}, modality -> logits (B, K, H, W)) in one pass."""
        logits = self(batch.images, batch.valid)
        fused = masked_mean(list(logits.values()), presence(batch.valid, self.modalities))
        target = supervised(batch, *self.modalities)
        return {"main": self.criterion(fused, target)}, logits


def share_head(model: CoLearner) -> nn.Module:
    """Give every path of a model the head of the first one, and return it."""
    paths = list(model.paths.values())
    head = paths[0].get_submodule("head")
    for path in paths[1:]:
        path.set_submodule("head", head)
    return head


def _embed(path: nn.Module, images: Tensor, valid: Tensor) -> Tensor:
    assert isinstance(path, IndependentPath)
    return path.embed(images, valid)
