"""One plain path per modality in, each taught by all and by their fusion, also on unlabelled pixels: MDiCo-plus."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mdico_cube.batch import Batch
from mdico_cube.colearn.fullco import mean_single
from mdico_cube.colearn.independent import IndependentPath
from mdico_cube.colearn.mdico import mean_over
from mdico_cube.colearn.method import CoLearner, MethodCard, PixelLinear, present, supervised
from mdico_cube.colearn.subsets import masked_mean, presence
from mdico_cube.colearn.tasks import follow, opinion
from mdico_cube.recipe import ColearnSection
from mdico_cube.spec import InputSpec


class FusedHead(nn.Module):
    """One prediction from the embeddings of whichever modalities are there: f = P ReLU(BN(mean_m W_m z_m))."""

    def __init__(self, modalities: tuple[str, ...], width: int, classes: int) -> None:
        super().__init__()
        self.lift = nn.ModuleDict({m: PixelLinear(width, width) for m in modalities})
        self.head = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), PixelLinear(width, classes))

    def forward(self, embeddings: dict[str, Tensor], here: Tensor) -> Tensor:
        """Modality -> (B, d, H, W), and (M, B, H, W) True = counts, to logits (B, K, H, W)."""
        logits: Tensor = self.head(masked_mean([self.lift[m](z) for m, z in embeddings.items()], here))
        return logits


class MDiCoPlus(CoLearner):
    """Mutual teaching at the level of decisions, also on the cube's unlabelled pixels.

    ```
    z_m = E_m(x_m);  y_m = P_m z_m;  f = P ReLU(BN(mean_m W_m z_m)), the mean over the modalities observed at the pixel
    q   = stopgrad mean over {y_1, ..., y_M, f} of softmax(. / T)
    L   = mean_m l(y_m, y) + lf l(f, y) + lk * mean_m T^2 KL( q || softmax(y_m / T) )
    ```
    l is the class-balanced cross-entropy over labelled pixels. The last term counts every observed pixel, labelled or
    not: with `samples.unlabelled` most of a batch has no label, and there each sensor learns what the others see. The
    path of a modality is the independent baseline's, so a map costs no more. `fused` is the mean of the logits, f among
    them where two or more modalities were observed.

    Soft targets: Hinton et al., 2015; mutual teaching: Zhang et al., CVPR 2018. The combination is ours; what each part
    brings is measured in docs/results.md.
    """

    card = MethodCard(
        "MDiCo-plus",
        "this project, after Hinton et al. 2015 and Zhang et al. 2018; measured in docs/results.md",
        "mean_m l(y_m) + lf l(f) + lk mean_m T^2 KL(mean softmax(y_1 .. y_M, f / T) || y_m), the last also unlabelled",
    )
    learns_unlabelled = True

    def __init__(
        self, inputs: dict[str, InputSpec], classes: int, section: ColearnSection, class_weights: Tensor | None
    ) -> None:
        super().__init__(inputs, classes, section, class_weights)
        if section.plus.fused:
            self.together = FusedHead(self.modalities, section.encoder.width, classes)

    @classmethod
    def build_single(cls, spec: InputSpec, classes: int, section: ColearnSection) -> nn.Module:
        """A fresh path of one modality."""
        return IndependentPath(spec, classes, section)

    def fuse(self, names: tuple[str, ...], images: dict[str, Tensor], valid: dict[str, Tensor], here: Tensor) -> Tensor:
        """Logits (B, K, H, W): the mean of every modality's, and of the fused head's where two or more are there."""
        features = {m: self._path(m).embed(images[m], valid[m]) for m in names}
        voices = [self._path(m).head(z) for m, z in features.items()]
        if not self.section.plus.fused or len(names) == 1:
            return masked_mean(voices, here)
        several = here.sum(dim=0, keepdim=True) > 1
        return masked_mean([*voices, self.together(features, here)], torch.cat([here, several]))

    def learn(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(the losses whose weight is above 0, modality -> logits (B, K, H, W))."""
        options = self.section.plus
        features = {m: self._path(m).embed(batch.images[m], batch.valid[m]) for m in self.modalities}
        logits = {m: self._path(m).head(z) for m, z in features.items()}
        losses = {"main": mean_single(batch, logits, self.criterion)}
        voices, here = list(logits.values()), presence(batch.valid, self.modalities)
        if options.fused:
            fused = self.together(features, here)
            target = supervised(batch, *self.modalities)
            losses["fused"] = options.fused * self.criterion(fused, target)
            voices, here = [*voices, fused], torch.cat([here, torch.ones_like(here[:1])])
        if options.distillation:
            heat, task = options.temperature, self.section.task
            soft = [opinion(task, z, heat) for z in voices]
            all_say = masked_mean(soft, here)
            told = [
                follow(task, z, all_say if options.teacher == "all" else own, heat, present(batch, m))
                for (m, z), own in zip(logits.items(), soft, strict=False)
            ]
            losses["distillation"] = options.distillation * mean_over(told)
        return losses, logits

    def _path(self, modality: str) -> IndependentPath:
        path = self.paths[modality]
        assert isinstance(path, IndependentPath)
        return path
