"""Specific and shared embeddings of every modality in, predictions that bear missing modalities out: Co-Miss."""

from __future__ import annotations

from torch import Tensor

from mdico_cube.batch import Batch
from mdico_cube.colearn.fullco import BASE, POSTER, FusedCoLearner
from mdico_cube.colearn.method import MethodCard, supervised
from mdico_cube.colearn.subsets import masked_mean, observed, random_subset


class CoMiss(FusedCoLearner):
    """Co-learning for missing modalities (poster, Mena et al. 2025): a random subset learns what all know.

    ```
    L = Base + lk * [ l(F(S), y) + T^2 KL( stopgrad softmax(F(all)/T) || softmax(F(S)/T) ) ]
    ```
    S keeps each modality with probability 1/2, per sample, never empty.
    """

    card = MethodCard("Co-Miss", POSTER, f"{BASE} + lk (l(F(S)) + T^2 KL(F(all) || F(S))), S random")

    def collaborate(self, batch: Batch, logits: dict[str, Tensor], fused: Tensor, here: Tensor) -> dict[str, Tensor]:
        """The two terms of the random subset."""
        subset = masked_mean(list(logits.values()), random_subset(here, self.training))
        seen = observed(batch.valid, self.modalities).any(dim=0)
        return {
            "missing": self.criterion(subset, supervised(batch, *self.modalities)),
            "distillation": self.distil(subset, fused, self.section.fullco.temperature, seen),
        }
