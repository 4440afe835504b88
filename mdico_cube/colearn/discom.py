"""Specific, unused and shared embeddings of every modality in, five losses with an adversary out: DisCoM-KD."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mdico_cube.batch import Batch
from mdico_cube.colearn.losses import squared_cosine
from mdico_cube.colearn.mdico import MDiCo, Spaces, mean_over, tell_modalities
from mdico_cube.colearn.method import MethodCard, PixelLinear, present, supervised
from mdico_cube.recipe import ColearnSection
from mdico_cube.spec import InputSpec


class _Reverse(torch.autograd.Function):
    """Identity forward, the negative gradient backward."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return -gradient


def reverse_gradient(value: Tensor) -> Tensor:
    """The same values; what learns from them pushes whatever made them the other way (Ganin et al., 2016)."""
    reversed_: Tensor = _Reverse.apply(value)  # type: ignore[no-untyped-call]
    return reversed_


class DisCoMKD(MDiCo):
    """Disentanglement-learning based cross-modal knowledge distillation (Ienco and Dantas, BMVC 2024).

    MDiCo's ancestor: the same three spaces (theirs: informative, irrelevant, invariant), the same L_main, L_aux and
    L_mod, an adversary instead of the contrast, and spaces of a modality that are orthogonal.
    ```
    L_adv  = mean_m  CE(D_adv(reverse(z_sha)), m)
    L_orth = mean_m  1/2 [ cos^2(z_spe, z_sha) + cos^2(z_spe, z_unu) ]
    ```
    Our inference from the published description, in particular: MDiCo's heads and widths instead of the paper's
    own, cos^2 as the measure of orthogonality, gradient reversal at full strength from the first step.
    """

    card = MethodCard(
        "DisCoM-KD",
        "Ienco and Dantas, BMVC 2024 (arXiv 2408.07080)",
        "MDiCo's main, auxiliary and modality losses + mean_m CE(D_adv reverse(sha_m), m) + mean_m cos^2 of the spaces",
    )

    def __init__(
        self, inputs: dict[str, InputSpec], classes: int, section: ColearnSection, class_weights: Tensor | None
    ) -> None:
        super().__init__(inputs, classes, section, class_weights)
        self.adversary = PixelLinear(section.encoder.width // 2, len(inputs))

    def learn(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(the five losses, modality -> logits (B, K, H, W))."""
        options = self.section.discom
        spaces, logits = self.embed(batch)
        targets = {m: supervised(batch, m) for m in self.modalities}
        reversed_ = {m: reverse_gradient(z.shared) for m, z in spaces.items()}
        losses = {
            "main": self._main(logits, targets),
            "auxiliary": self._auxiliary(spaces, targets),
            "modality": self._modality(spaces, batch),
            "adversarial": options.adversarial * tell_modalities(self.adversary, reversed_, batch),
            "orthogonal": options.orthogonal * mean_over([_overlap(spaces[m], present(batch, m)) for m in spaces]),
        }
        return losses, logits


def _overlap(spaces: Spaces, where: Tensor) -> Tensor:
    with_shared = squared_cosine(spaces.specific, spaces.shared, where)
    return (with_shared + squared_cosine(spaces.specific, spaces.unused, where)) / 2
