"""One plain path per modality in, each taught by the mean of all of them, also on unlabelled pixels: MDiCo-plus."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mdico_cube.batch import Batch
from mdico_cube.colearn.fullco import mean_single
from mdico_cube.colearn.independent import IndependentPath
from mdico_cube.colearn.losses import soft_targets
from mdico_cube.colearn.mdico import mean_over
from mdico_cube.colearn.method import CoLearner, MethodCard, present
from mdico_cube.colearn.subsets import masked_mean, presence
from mdico_cube.recipe import ColearnSection
from mdico_cube.spec import InputSpec


class MDiCoPlus(CoLearner):
    """Mutual teaching at the level of decisions, also on the cube's unlabelled pixels.

    ```
    y_m = P_m(E_m(x_m))
    q   = stopgrad mean_m softmax(y_m / T), over the modalities observed at the pixel
    L   = mean_m l(y_m, y) + lk * mean_m T^2 KL( q || softmax(y_m / T) )
    ```
    l is the class-balanced cross-entropy over labelled pixels. The second term counts every observed pixel, labelled or
    not: with `samples.unlabelled` most of a batch has no label, and there each sensor learns what the others see. The
    path of a modality is the independent baseline's, so a map costs no more. `fused` is the mean of the logits.

    Soft targets: Hinton et al., 2015; mutual teaching: Zhang et al., CVPR 2018. The combination is ours; what each part
    brings is measured in docs/results.md.
    """

    card = MethodCard(
        "MDiCo-plus",
        "this project, after Hinton et al. 2015 and Zhang et al. 2018; measured in docs/results.md",
        "mean_m [l(y_m) + lk T^2 KL(mean_j softmax(y_j / T) || softmax(y_m / T))], the second also where unlabelled",
    )
    learns_unlabelled = True

    @classmethod
    def build_single(cls, spec: InputSpec, classes: int, section: ColearnSection) -> nn.Module:
        """A fresh path of one modality."""
        return IndependentPath(spec, classes, section)

    def learn(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(the losses whose weight is above 0, modality -> logits (B, K, H, W))."""
        options = self.section.plus
        logits = self(batch.images, batch.valid)
        losses = {"main": mean_single(batch, logits, self.class_weights)}
        if options.distillation:
            heat = options.temperature
            voices = [F.softmax(z.detach() / heat, dim=1) for z in logits.values()]
            goal = masked_mean(voices, presence(batch.valid, self.modalities))
            told = [soft_targets(z, goal, heat, present(batch, m)) for m, z in logits.items()]
            losses["distillation"] = options.distillation * mean_over(told)
        return losses, logits
