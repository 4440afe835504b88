"""Every modality in, a sensor dropped at random and taught by all of them: DSensD and DSensD+."""

from __future__ import annotations

from torch import Tensor, nn

from mdico_cube.batch import Batch
from mdico_cube.colearn.chains import Chain, encoder_layers
from mdico_cube.colearn.encoders.registry import build_encoder
from mdico_cube.colearn.fullco import mean_distilled, mean_single
from mdico_cube.colearn.inputs import Normalise
from mdico_cube.colearn.method import CoLearner, MethodCard, PixelLinear, supervised
from mdico_cube.colearn.subsets import masked_mean, presence, random_subset
from mdico_cube.recipe import ColearnSection
from mdico_cube.spec import InputSpec

_PAPER = "Mena et al., IEEE Access, 2025"


class PixelLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of every pixel: (B, C, H, W) to the same shape."""

    def forward(self, input: Tensor) -> Tensor:
        """Each pixel's channels with mean 0 and variance 1, then an affine map."""
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class DSensDPath(nn.Module):
    """logits = head(E(x)); the head is Linear-ReLU-BN-dropout, Linear, LayerNorm on the logits of K >= 3 classes."""

    def __init__(self, spec: InputSpec, classes: int, section: ColearnSection) -> None:
        super().__init__()
        width = section.encoder.width
        self.inputs = Normalise(spec)
        self.encoder = build_encoder(spec, section.encoder)
        normed = classes >= 3 and section.task.kind == "classes"
        layers: list[nn.Module] = [PixelLinear(width, width), nn.ReLU(), nn.BatchNorm2d(width)]
        layers += [nn.Dropout(section.encoder.dropout), PixelLinear(width, classes)]
        self.head = nn.Sequential(*layers, *([PixelLayerNorm(classes)] if normed else []))

    def forward(self, images: Tensor, valid: Tensor) -> Tensor:
        """(B, T, C, H, W) physical values and (B, T, H, W) observed to logits (B, K, H, W)."""
        logits: Tensor = self.head(self.encoder(self.inputs(images, valid), valid))
        return logits

    def chain(self) -> Chain | None:
        """The path as data; see Chained."""
        layers, head = encoder_layers(self.encoder), tuple(self.head.children())
        return None if layers is None else Chain(self.inputs, ((*layers, *head[:4]),), head[4:])


class DSensD(CoLearner):
    """Decision-level sensor dropout: L = l(F(S), y), F(S) = mean over m in S of logits_m.

    S keeps each modality with probability 1/2, per sample, never empty. (In the public code S is always one sensor.)
    """

    card = MethodCard("DSensD", _PAPER, "l(F(S)), S random, F = mean of logits")

    @classmethod
    def build_single(cls, spec: InputSpec, classes: int, section: ColearnSection) -> nn.Module:
        """A fresh path of one modality."""
        return DSensDPath(spec, classes, section)

    def learn(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """({"main": scalar}, modality -> logits (B, K, H, W))."""
        logits = self(batch.images, batch.valid)
        return {"main": self._dropped(batch, logits, presence(batch.valid, self.modalities))}, logits

    def _dropped(self, batch: Batch, logits: dict[str, Tensor], here: Tensor) -> Tensor:
        """l(F(S), y)."""
        subset = masked_mean(list(logits.values()), random_subset(here, self.training))
        return self.criterion(subset, supervised(batch, *self.modalities))


class DSensDPlus(DSensD):
    """DSensD with co-learning by self-distillation (Mena et al., IEEE Access 2025; its form follows the public code).

    ```
    L = l(F(S), y) + l(F(all), y) + mean_m l(logits_m, y)
        + mean_m T^2 KL( stopgrad softmax(F(all)/T) || softmax(logits_m/T) )
    ```
    """

    card = MethodCard("DSensD+", _PAPER, "l(F(S)) + l(F(all)) + mean_m (l(y_m) + T^2 KL(F(all) || y_m)), S random")

    def learn(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(the losses, modality -> logits (B, K, H, W))."""
        options = self.section.dsensd
        logits = self(batch.images, batch.valid)
        here = presence(batch.valid, self.modalities)
        fused = masked_mean(list(logits.values()), here)
        target = supervised(batch, *self.modalities)
        losses = {
            "main": self.criterion(fused, target),
            "missing": self._dropped(batch, logits, here),
            "single": mean_single(batch, logits, self.criterion),
        }
        if options.distillation:
            distilled = mean_distilled(self, batch, logits, fused, options.temperature)
            losses["distillation"] = options.distillation * distilled
        return losses, logits
