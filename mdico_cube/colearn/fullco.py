"""Specific and shared embeddings in, one fused and every single prediction taught together out: FullCo."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

from torch import Tensor, nn

from mdico_cube.batch import Batch
from mdico_cube.colearn.mdico import MDiCoPath, Spaces, contrast_pairs, mean_over, tell_modalities
from mdico_cube.colearn.method import CoLearner, MethodCard, PixelLinear, present, supervised
from mdico_cube.colearn.subsets import masked_mean, presence
from mdico_cube.recipe import ColearnSection
from mdico_cube.spec import InputSpec

POSTER = "Mena et al., poster 'Harnessing Multi-Modal Co-learning for Missing EO Modalities', 2025"
BASE = "l(F(all)) + lc mean_ij NT-Xent(sha_i, sha_j) + ld mean_m CE(D spe_m, m)"


class FusedCoLearner(CoLearner):
    """What FullCo and Co-Miss have in common.

    ```
    F(S) = mean over m in S of logits_m
    Base = l(F(all), y) + lc * mean_{i<j} NT-Xent(z_sha_i, z_sha_j) + ld * mean_m CE(D z_spe_m, m)
    ```
    The features are MDiCo's specific and shared ones. The fusion by the mean of logits and the form of the
    distillation are inferred from DSensD+ [our inference]; the poster does not give them. Distillation counts every
    observed pixel, labelled or not. `all` means every modality that was observed at the pixel.
    """

    def __init__(
        self, inputs: dict[str, InputSpec], classes: int, section: ColearnSection, class_weights: Tensor | None
    ) -> None:
        super().__init__(inputs, classes, section, class_weights)
        self.discriminate = PixelLinear(section.encoder.width // 2, len(inputs))

    @classmethod
    def build_single(cls, spec: InputSpec, classes: int, section: ColearnSection) -> nn.Module:
        """A fresh path of one modality, as MDiCo's; its unused half gets no gradient."""
        return MDiCoPath(spec, classes, section)

    @abstractmethod
    def collaborate(self, batch: Batch, logits: dict[str, Tensor], fused: Tensor, here: Tensor) -> dict[str, Tensor]:
        """The method's own losses, not yet weighted; `here` (M, B, H, W) is what was observed."""

    def learn(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(the losses whose weight is above 0, modality -> logits (B, K, H, W))."""
        options = self.section.fullco
        spaces = {m: self._embed(m, batch) for m in self.modalities}
        logits = {m: self._classify(m, z) for m, z in spaces.items()}
        here = presence(batch.valid, self.modalities)
        fused = masked_mean(list(logits.values()), here)
        target = supervised(batch, *self.modalities)
        losses = {"main": self.criterion(fused, target)}
        if options.contrastive:
            targets = {m: supervised(batch, m) for m in self.modalities}
            shared = {m: z.shared for m, z in spaces.items()}
            pairs = contrast_pairs(shared, targets, options.contrast_temperature, options.contrast_pixels)
            losses["contrastive"] = options.contrastive * pairs.mean()
        if options.modality:
            specific = {m: z.specific for m, z in spaces.items()}
            losses["modality"] = options.modality * tell_modalities(self.discriminate, specific, batch)
        if options.collaboration:
            own = self.collaborate(batch, logits, fused, here)
            losses |= {name: options.collaboration * loss for name, loss in own.items()}
        return losses, logits

    def _embed(self, modality: str, batch: Batch) -> Spaces:
        path = self.paths[modality]
        assert isinstance(path, MDiCoPath)
        return path.embed(batch.images[modality], batch.valid[modality])

    def _classify(self, modality: str, spaces: Spaces) -> Tensor:
        path = self.paths[modality]
        assert isinstance(path, MDiCoPath)
        return path.classify(spaces)


class FullCo(FusedCoLearner):
    """Full collaboration (poster, Mena et al. 2025): every modality alone learns the class and what the fusion knows.

    ```
    L = Base + lk * mean_m [ l(logits_m, y) + T^2 KL( stopgrad softmax(F(all)/T) || softmax(logits_m/T) ) ]
    ```
    """

    card = MethodCard("FullCo", POSTER, f"{BASE} + lk mean_m (l(y_m) + T^2 KL(F(all) || y_m))")

    def collaborate(self, batch: Batch, logits: dict[str, Tensor], fused: Tensor, here: Tensor) -> dict[str, Tensor]:
        """The two terms of every modality alone."""
        return {
            "single": mean_single(batch, logits, self.criterion),
            "distillation": mean_distilled(self, batch, logits, fused, self.section.fullco.temperature),
        }


def mean_single(batch: Batch, logits: dict[str, Tensor], criterion: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """mean_m l(logits_m, y), over labelled pixels where the modality was observed."""
    return mean_over([criterion(z, supervised(batch, m)) for m, z in logits.items()])


def mean_distilled(
    model: CoLearner, batch: Batch, logits: dict[str, Tensor], fused: Tensor, temperature: float
) -> Tensor:
    """mean_m T^2 KL(stopgrad softmax(F/T) || softmax(logits_m/T)), over pixels where the modality was observed."""
    return mean_over([model.distil(z, fused, temperature, present(batch, m)) for m, z in logits.items()])
