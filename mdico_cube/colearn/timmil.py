"""One token per modality in, one class token out of a small transformer: TiMMIL-like."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mdico_cube.batch import Batch
from mdico_cube.colearn.encoders.registry import build_encoder
from mdico_cube.colearn.inputs import Normalise
from mdico_cube.colearn.method import CoLearner, MethodCard, PixelLinear, supervised
from mdico_cube.colearn.subsets import presence, random_subset
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import ColearnSection
from mdico_cube.spec import InputSpec


class Mixer(nn.Module):
    """cls token + modality tokens -> one transformer layer -> Linear on the cls token."""

    def __init__(self, classes: int, section: ColearnSection) -> None:
        super().__init__()
        width, options = section.encoder.width, section.timmil
        if width % options.heads:
            raise MdicoError(
                f"encoder.width ({width}) must be a multiple of timmil.heads ({options.heads}). Change one of them."
            )
        self.token = nn.Parameter(torch.zeros(width))
        self.layer = nn.TransformerEncoderLayer(width, options.heads, 2 * width, options.dropout, batch_first=True)
        self.head = PixelLinear(width, classes)
        nn.init.trunc_normal_(self.token, std=0.02)

    def forward(self, tokens: list[Tensor], here: Tensor) -> Tensor:
        """M tokens (B, d, H, W), and (M, B, H, W) True = counts, to logits (B, K, H, W)."""
        m, (b, d, h, w) = len(tokens), tokens[0].shape
        rows = torch.stack(tokens).permute(1, 3, 4, 0, 2).reshape(b * h * w, m, d)  # (B*H*W, M, d)
        first = self.token.to(rows.dtype).expand(b * h * w, 1, d)
        hidden = ~here.permute(1, 2, 3, 0).reshape(b * h * w, m)
        hidden = torch.cat([hidden.new_zeros(b * h * w, 1), hidden], dim=1)  # (B*H*W, 1 + M)
        mixed = self.layer(torch.cat([first, rows], dim=1), src_key_padding_mask=hidden)[:, 0]  # (B*H*W, d)
        logits: Tensor = self.head(mixed.view(b, h, w, d).permute(0, 3, 1, 2))
        return logits


class TiMMILPath(nn.Module):
    """logits = mixer([cls; E(x) + e_m]); the mixer is the same for every modality."""

    def __init__(self, spec: InputSpec, classes: int, section: ColearnSection) -> None:
        super().__init__()
        self.inputs = Normalise(spec)
        self.encoder = build_encoder(spec, section.encoder)
        self.kind = nn.Parameter(torch.zeros(section.encoder.width))
        self.mixer = Mixer(classes, section)
        nn.init.trunc_normal_(self.kind, std=0.02)

    def embed(self, images: Tensor, valid: Tensor) -> Tensor:
        """(B, T, C, H, W) physical values and (B, T, H, W) observed to the token (B, d, H, W)."""
        token: Tensor = self.encoder(self.inputs(images, valid), valid) + self.kind[:, None, None]
        return token

    def forward(self, images: Tensor, valid: Tensor) -> Tensor:
        """(B, T, C, H, W) physical values and (B, T, H, W) observed to logits (B, K, H, W)."""
        token = self.embed(images, valid)
        everywhere = torch.ones((1, token.shape[0], *token.shape[2:]), dtype=torch.bool, device=token.device)
        logits: Tensor = self.mixer([token], everywhere)
        return logits


class TiMMILLike(CoLearner):
    """Modality tokens mixed by a transformer, trained with missing modalities; TiMMIL itself has no public code.

    z_m = E_m(x_m) + e_m; one transformer layer (8 heads, dropout .4) over [cls; z_m for m in S]; L = l(P(cls), y).
    S is one random subset per training step [our inference: each modality with probability 1/2, never empty]; outside
    training it is drawn per sample, so that a validation loss sees every subset.
    """

    card = MethodCard(
        "TiMMIL-like", "after TiMMIL, which has no public code", "l(P(transformer([cls; z_m, m in S]))), S random"
    )

    def __init__(
        self, inputs: dict[str, InputSpec], classes: int, section: ColearnSection, class_weights: Tensor | None
    ) -> None:
        super().__init__(inputs, classes, section, class_weights)
        paths = list(self.paths.values())
        mixer = paths[0].get_submodule("mixer")
        for path in paths[1:]:
            path.set_submodule("mixer", mixer)
        self.mixer = mixer

    @classmethod
    def build_single(cls, spec: InputSpec, classes: int, section: ColearnSection) -> nn.Module:
        """A fresh path of one modality."""
        return TiMMILPath(spec, classes, section)

    def fuse(self, names: tuple[str, ...], images: dict[str, Tensor], valid: dict[str, Tensor], here: Tensor) -> Tensor:
        """Logits (B, K, H, W) of the class token that has seen these modalities."""
        logits: Tensor = self.mixer([self._token(m, images[m], valid[m]) for m in names], here)
        return logits

    def learn(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """({"main": scalar}, modality -> logits (B, K, H, W))."""
        tokens = {m: self._token(m, batch.images[m], batch.valid[m]) for m in self.modalities}
        here = presence(batch.valid, self.modalities)
        subset = random_subset(here, self.training, together=self.training)
        scores = self.mixer(list(tokens.values()), subset)
        loss = self.criterion(scores, supervised(batch, *self.modalities))
        return {"main": loss}, {m: self.mixer([z], torch.ones_like(here[:1])) for m, z in tokens.items()}

    def _token(self, modality: str, images: Tensor, valid: Tensor) -> Tensor:
        path = self.paths[modality]
        assert isinstance(path, TiMMILPath)
        return path.embed(images, valid)
