"""Tiny inputs, batches and loaders with a known truth, for every test of colearn."""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader, Dataset

from mdico_cube.batch import Batch
from mdico_cube.recipe import ColearnSection
from mdico_cube.spec import Band, BandStats, InputSpec, LabelClass, Modality, Storage

MONTHS = tuple(f"2021-{month:02d}-01" for month in range(1, 7))
LEGEND = (
    LabelClass("wheat", 1, "#e8c34a"),
    LabelClass("winter rape & turnip", 2, "#44aa55"),
    LabelClass("water", 3, "#2266cc"),
)


def make_spec(name: str, bands: int, steps: tuple[str, ...] = MONTHS, mean: float = 5.0, std: float = 2.0) -> InputSpec:
    modality = Modality(
        name,
        "values",
        tuple(Band(f"b{i}", "dB" if name == "radar" else "reflectance") for i in range(bands)),
        Storage("float32", 1.0, float("nan")) if name == "terrain" else Storage("int16", 0.01, -32768),
        temporal=steps != ("",),
        title=name.title(),
    )
    return InputSpec(modality, steps, BandStats((mean,) * bands, (std,) * bands, 1000))


def make_inputs(three: bool = False) -> dict[str, InputSpec]:
    inputs = {
        "radar": make_spec("radar", 2, mean=-12.0, std=3.0),
        "optical": make_spec("optical", 4, mean=0.2, std=0.1),
    }
    return {**inputs, "terrain": make_spec("terrain", 3, ("",), mean=100.0, std=50.0)} if three else inputs


def make_section(**changes: object) -> ColearnSection:
    settings: dict[str, object] = {
        "modalities": ("radar", "optical"),
        "encoder": {"width": 16, "hidden": 8, "dense": 24, "kernel": 5, "dropout": 0.2},
        "train": {
            **{"epochs": 4, "batch": 16, "accelerator": "cpu", "patience": 10, "loggers": ()},
            **{"schedule": "constant", "keep": "best", "learning_rate": 1e-3},
        },
    }
    for key, value in changes.items():
        settings[key] = {**settings.get(key, {}), **value} if isinstance(value, dict) else value  # type: ignore[dict-item]
    return ColearnSection.model_validate(settings)


def make_batch(
    inputs: dict[str, InputSpec], samples: int, size: int = 1, seed: int = 0, gaps: float = 0.2, noise: float = 0.5
) -> Batch:
    """Each class has its own level and slope in every modality; labels of all pixels, classes evenly drawn."""
    draw = torch.Generator().manual_seed(seed)
    target = torch.randint(0, len(LEGEND), (samples, size, size), generator=draw)
    images, valid = {}, {}
    for number, (name, spec) in enumerate(inputs.items()):
        t, c = len(spec.steps), len(spec.modality.bands)
        level = (target.float() - 1)[:, None, None] * (1 if number % 2 else -1)  # (B, 1, 1, H, W)
        slope = torch.linspace(-1, 1, t)[None, :, None, None, None] if t > 1 else torch.ones(1, 1, 1, 1, 1)
        z = level * (1 + 0.5 * slope) + noise * torch.randn(samples, t, c, size, size, generator=draw)
        images[name] = z * spec.stats.std[0] + spec.stats.mean[0]
        valid[name] = torch.rand(samples, t, size, size, generator=draw) >= (gaps if t > 1 else 0.0)
    return Batch(images, valid, target)


class Windows(Dataset[Batch]):
    """A batch cut into samples."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(self.batch)

    def __getitem__(self, index: int) -> int:
        return index

    def collate(self, picked: list[int]) -> Batch:
        rows = torch.tensor(picked)
        assert self.batch.target is not None
        return Batch(
            {name: image[rows] for name, image in self.batch.images.items()},
            {name: mask[rows] for name, mask in self.batch.valid.items()},
            self.batch.target[rows],
        )


def make_loader(batch: Batch, size: int = 16, shuffle: bool = True) -> DataLoader[Batch]:
    windows = Windows(batch)
    return DataLoader(windows, size, shuffle=shuffle, collate_fn=windows.collate)


def counts(batch: Batch) -> list[int]:
    assert batch.target is not None
    return torch.bincount(batch.target[batch.target >= 0].flatten(), minlength=len(LEGEND)).tolist()
