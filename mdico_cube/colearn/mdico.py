"""Specific, unused and shared embeddings of every modality in, four losses out: MDiCo."""

from __future__ import annotations

from copy import deepcopy
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mdico_cube.batch import UNLABELLED, Batch, labelled
from mdico_cube.colearn.chains import Chain, Keep, encoder_layers
from mdico_cube.colearn.encoders.registry import build_encoder
from mdico_cube.colearn.inputs import Normalise
from mdico_cube.colearn.losses import balanced_cross_entropy, nt_xent, spread
from mdico_cube.colearn.method import CoLearner, MethodCard, PixelLinear, present, supervised
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import ColearnSection
from mdico_cube.spec import InputSpec


class Spaces(NamedTuple):
    """The three embeddings of one modality, (B, d/2, H, W) each."""

    specific: Tensor
    unused: Tensor
    shared: Tensor


class MDiCoPath(nn.Module):
    """One modality: two encoders of the same architecture and the same initial weights, E_uni and E_com.

    u = E_uni(x); z_spe = u[:d/2], z_unu = u[d/2:]; z_sha = ReLU(BN(Linear(E_com(x)))); logits = P([z_spe; z_sha]).
    """

    def __init__(self, spec: InputSpec, classes: int, section: ColearnSection) -> None:
        super().__init__()
        width = section.encoder.width
        self.inputs = Normalise(spec)
        self.encoder_unique = build_encoder(spec, section.encoder)
        self.encoder_common = deepcopy(self.encoder_unique)
        self.shared = nn.Sequential(PixelLinear(width, width // 2), nn.BatchNorm2d(width // 2), nn.ReLU())
        self.head = PixelLinear(width, classes)

    def embed(self, images: Tensor, valid: Tensor) -> Spaces:
        """(B, T, C, H, W) physical values and (B, T, H, W) observed to the three embeddings."""
        series = self.inputs(images, valid)
        specific, unused = self.encoder_unique(series, valid).chunk(2, dim=1)  # (B, d/2, H, W) each
        return Spaces(specific, unused, self.shared(self.encoder_common(series, valid)))

    def classify(self, spaces: Spaces) -> Tensor:
        """Logits (B, K, H, W) from the specific and the shared embedding."""
        logits: Tensor = self.head(torch.cat([spaces.specific, spaces.shared], dim=1))
        return logits

    def forward(self, images: Tensor, valid: Tensor) -> Tensor:
        """(B, T, C, H, W) physical values and (B, T, H, W) observed to logits (B, K, H, W)."""
        return self.classify(self.embed(images, valid))

    def chain(self) -> Chain | None:
        """The path as data; see Chained."""
        unique, common = encoder_layers(self.encoder_unique), encoder_layers(self.encoder_common)
        if unique is None or common is None:
            return None
        specific = (*unique, Keep(self.head.in_features // 2))
        return Chain(self.inputs, (specific, (*common, *self.shared)), (self.head,))


class MDiCo(CoLearner):
    """Multi-modal disentanglement for co-learning (Mena et al., Machine Learning 114, 2025; arXiv 2510.19579).

    ```
    L_main = mean_m  l(P_m [z_spe; z_sha], y)
    L_aux  = mean_m  1/2 [ l(A z_spe, y) + l(A z_sha, y) ]
    L_mod  = mean_m  1/2 [ CE(D_spe z_spe, m) + CE(D_unu z_unu, m) ]
    L_con  = sum over ordered pairs i != j  NT-Xent(z_sha_i, z_sha_j; tau)
    ```
    l is the class-balanced cross-entropy, or what `supervised_loss` says of another task; A is one head for all
    modalities and both spaces; every head is one Linear.
    With `discriminate: shared`, as in the public code, D_unu reads z_sha instead of z_unu: z_unu, the second half of
    E_uni's last Linear, then gets no gradient. `contrastive_reduction: mean` takes 2 x the mean over ordered pairs,
    which for two modalities equals the paper's sum and does not grow with their number.

    Pixels: l counts labelled pixels where the modality was observed, L_mod every observed pixel, labelled or not,
    NT-Xent at most `contrast_pixels` labelled pixels where both modalities were observed, evenly spread over the batch.
    The paper has no fused prediction; `fused` takes the mean of the modalities' logits [our inference].
    """

    card = MethodCard(
        "MDiCo",
        "Mena et al., Machine Learning 114, 2025 (arXiv 2510.19579)",
        "mean_m [l(y_m) + (l(A spe) + l(A sha))/2 + (CE(D spe, m) + CE(D unu, m))/2] + sum_ij NT-Xent(sha_i, sha_j)",
    )

    def __init__(
        self, inputs: dict[str, InputSpec], classes: int, section: ColearnSection, class_weights: Tensor | None
    ) -> None:
        super().__init__(inputs, classes, section, class_weights)
        options, half = section.mdico, section.encoder.width // 2
        if not any((options.main, options.auxiliary, options.modality, options.contrastive)):
            raise MdicoError("every loss weight of colearn.mdico is 0: nothing would be learned. Raise at least main.")
        self.auxiliary = PixelLinear(half, classes)
        self.discriminate_specific = PixelLinear(half, len(inputs))
        self.discriminate_unused = PixelLinear(half, len(inputs))

    @classmethod
    def build_single(cls, spec: InputSpec, classes: int, section: ColearnSection) -> nn.Module:
        """A fresh path of one modality."""
        return MDiCoPath(spec, classes, section)

    def learn(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(the losses whose weight is above 0, modality -> logits (B, K, H, W))."""
        spaces, logits = self.embed(batch)
        targets = {m: supervised(batch, m) for m in self.modalities}
        options, losses = self.section.mdico, {}
        if options.main:
            losses["main"] = options.main * self._main(logits, targets)
        if options.auxiliary:
            losses["auxiliary"] = options.auxiliary * self._auxiliary(spaces, targets)
        if options.modality:
            losses["modality"] = options.modality * self._modality(spaces, batch)
        if options.contrastive:
            losses["contrastive"] = options.contrastive * self._contrastive(spaces, targets)
        return losses, logits

    def embed(self, batch: Batch) -> tuple[dict[str, Spaces], dict[str, Tensor]]:
        """(modality -> the three embeddings, modality -> logits (B, K, H, W)) of a batch in one pass."""
        paths = {m: self._path(m) for m in self.modalities}
        spaces = {m: path.embed(batch.images[m], batch.valid[m]) for m, path in paths.items()}
        return spaces, {m: path.classify(spaces[m]) for m, path in paths.items()}

    def _path(self, modality: str) -> MDiCoPath:
        path = self.paths[modality]
        assert isinstance(path, MDiCoPath)
        return path

    def _main(self, logits: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
        return mean_over([self.criterion(logits[m], targets[m]) for m in self.modalities])

    def _auxiliary(self, spaces: dict[str, Spaces], targets: dict[str, Tensor]) -> Tensor:
        """L_aux: both useful spaces must tell the classes apart through one common head."""
        terms = [
            self.criterion(self.auxiliary(z), targets[m])
            for m in self.modalities
            for z in (spaces[m].specific, spaces[m].shared)
        ]
        return mean_over(terms)

    def _modality(self, spaces: dict[str, Spaces], batch: Batch) -> Tensor:
        """L_mod: the specific and the unused space must tell the modalities apart."""
        unused = self.section.mdico.discriminate == "unused"
        second = {m: z.unused if unused else z.shared for m, z in spaces.items()}
        specific = {m: z.specific for m, z in spaces.items()}
        first = tell_modalities(self.discriminate_specific, specific, batch)
        return (first + tell_modalities(self.discriminate_unused, second, batch)) / 2

    def _contrastive(self, spaces: dict[str, Spaces], targets: dict[str, Tensor]) -> Tensor:
        """L_con over unordered pairs, times 2: NT-Xent is symmetric in its two views."""
        options = self.section.mdico
        pairs = contrast_pairs(
            {m: z.shared for m, z in spaces.items()}, targets, options.temperature, options.contrast_pixels
        )
        return 2 * (pairs.sum() if options.contrastive_reduction == "sum" else pairs.mean())


def mean_over(terms: list[Tensor]) -> Tensor:
    """Mean of scalars."""
    return torch.stack(terms).mean()


def tell_modalities(head: nn.Module, embeddings: dict[str, Tensor], batch: Batch) -> Tensor:
    """mean_m CE(head(z_m), m) over every pixel where the modality was observed, labelled or not."""
    terms = []
    for number, (m, z) in enumerate(embeddings.items()):
        target = torch.where(present(batch, m), number, UNLABELLED)  # (B, H, W)
        terms.append(balanced_cross_entropy(head(z), target))
    return mean_over(terms)


def contrast_pairs(shared: dict[str, Tensor], targets: dict[str, Tensor], temperature: float, most: int) -> Tensor:
    """NT-Xent of every unordered pair of modalities, over labelled pixels where both were observed.

    Args:
        shared: modality -> (B, d/2, H, W).
        targets: modality -> (B, H, W), unlabelled also where not observed.
        temperature: of NT-Xent.
        most: at most this many pixels, evenly spread over the batch.

    Returns:
        (M (M - 1) / 2,).
    """
    terms = []
    for i, j in combinations(shared, 2):
        both = labelled(targets[i]) & labelled(targets[j])  # (B, H, W)
        pixels = spread(both.flatten(), most)
        first, second = (shared[m].movedim(1, -1).flatten(0, 2)[pixels] for m in (i, j))  # (N, d/2) each
        terms.append(nt_xent(first, second, temperature))
    return torch.stack(terms)
