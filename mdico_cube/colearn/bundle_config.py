"""What a sensor's model is and what it takes: a bundle's config as data, and the check that a cube fits it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_serializer, field_validator

from mdico_cube.colearn.tasks import Scale
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import ColearnSection, EncoderSection, TaskSection
from mdico_cube.spec import Band, BandStats, InputSpec, LabelClass, Modality, Storage

_DECIDES = {"method", "modality", "bands", "units", "steps", "classes", "colearn", "scale"}
_YEAR = 366  # days of the leap year in which month and day are compared


class Training(BaseModel):
    """How the model came about."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    samples: int
    """Training windows."""
    class_counts: tuple[int, ...]
    """Training samples of each class."""
    epochs: int
    """Epochs that were run."""
    best_epoch: int
    """Epoch (from 0) whose weights these are."""
    val_loss: float
    """Validation loss of that epoch: the sum of the method's losses."""
    val_f1: float | None = None
    """Macro F1 of this modality alone on the validation set in that epoch."""
    val_r2: float | None = None
    """Of a regression: R2 of this modality alone on the validation set in that epoch."""
    seconds: float
    """Wall time of the training."""


class Applicability(BaseModel):
    """What a bundle knows of its training data's reach; see mdico_cube.colearn.applicability."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    centres: int
    """Points that stand for the training data."""
    threshold: float
    """Distance in the standardised embedding that held-out pixels still have."""
    sha256: str
    """Digest of applicability.safetensors."""


class Quantisation(BaseModel):
    """What a bundle in 8-bit integers needs to know, and what that costs; see mdico_cube.colearn.int8."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ranges: tuple[tuple[tuple[float, float], ...], ...]
    """Per branch of the folded model the smallest and largest value in front of each map, on training pixels."""
    pixels: int
    """Training pixels they were measured on."""
    changed: float
    """Share of the validation pixels whose class in 8-bit integers is not the one in float32."""
    counted: int
    """Validation pixels that was counted on."""

    @property
    def digest(self) -> str:
        """SHA-256 of the ranges, which decide a map in 8-bit integers beside the bundle's own digest."""
        return hashlib.sha256(repr(self.ranges).encode()).hexdigest()


class BundleConfig(BaseModel):
    """One sensor's model. Everything needed to load it, to check a cube against it, and to cite it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    """Version of this file's layout."""
    name: Annotated[str, Field(pattern=r"^[a-zA-Z][a-zA-Z0-9_.\-]+[a-zA-Z0-9]$")]
    method: str
    """Name in mdico_cube.colearn.registry.METHODS."""
    modality: str
    """The sensor it maps with."""
    title: str = ""
    """What a person calls the sensor."""
    variable: str
    """Data variable of the sensor's group in a cube."""
    temporal: bool
    bands: tuple[str, ...]
    """In the order of the C axis."""
    units: tuple[str, ...]
    """Physical unit of each band."""
    storage: Storage
    """How the training cube stored the values; the model itself takes physical values."""
    steps: tuple[str, ...]
    """ISO date of each step's first day in the training year; one empty string for a sensor without time."""
    stats: BandStats
    """Of the training windows, in physical units; the first layer normalises with them."""
    classes: tuple[LabelClass, ...]
    """In the order of the logits; the labels of a multi-label task, or the one value of a regression."""
    colearn: ColearnSection
    """Options the model was trained with."""
    scale: Scale = Scale()
    """Of a regression: the model gives the z-score of the value; times std, plus mean."""
    seed: int
    training: Training
    parameters: int
    """Number of weights."""
    weights_sha256: str
    """Digest of weights.safetensors."""
    bbox: tuple[float, float, float, float] | None = None
    """West, south, east, north in degrees of the training region."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """The logits come out divided by it, which is already in the weights: confidence then tells how often the model is
    right, as measured on the validation windows; 1 = as trained."""
    applicability: Applicability | None = None
    """How far its training data reach; None where that was not measured."""
    int8: Quantisation | None = None
    """What 8-bit integers need and cost; None where that was not measured."""
    scores: dict[str, Any] = {}
    """Figures of evaluations, by name."""
    versions: dict[str, str]
    """Packages it was made with."""
    created: str
    """UTC, ISO 8601."""

    @property
    def encoder(self) -> EncoderSection:
        """Size of the network."""
        return self.colearn.encoder

    @property
    def task(self) -> TaskSection:
        """What the outputs are."""
        return self.colearn.task

    @property
    def protocol(self) -> str:
        """Where early stopping looked: "honest" = an inner validation split, "paper" = the scored fold itself."""
        return self.colearn.protocol

    @property
    def spec(self) -> InputSpec:
        """What the model takes."""
        bands = tuple(Band(name, unit) for name, unit in zip(self.bands, self.units, strict=True))
        modality = Modality(self.modality, self.variable, bands, self.storage, self.temporal, self.title)
        return InputSpec(modality, self.steps, self.stats)

    @property
    def digest(self) -> str:
        """SHA-256 of what determines predictions: equal digests give equal maps, whatever scores were added since."""
        facts = self.model_dump_json(include=_DECIDES)
        return hashlib.sha256((facts + self.weights_sha256).encode()).hexdigest()

    @field_serializer("storage")
    def _storage_as_json(self, storage: Storage) -> dict[str, Any]:
        """JSON has no NaN: a missing value of NaN is written as null."""
        missing = None if math.isnan(storage.missing) else storage.missing
        return {"dtype": storage.dtype, "scale": storage.scale, "missing": missing}

    @field_validator("storage", mode="before")
    @classmethod
    def _storage_from_json(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("missing", 0) is None:
            return {**value, "missing": math.nan}
        return value


def read_config(path: Path) -> BundleConfig:
    """A bundle.json.

    Raises:
        MdicoError: not there, not JSON, another version of the layout, or fields that are missing or wrong.
    """
    try:
        return BundleConfig.model_validate_json(path.read_bytes())
    except OSError as error:
        raise MdicoError(
            f"bundle {path.parent}: {path.name} cannot be read ({error.strerror}). Name a folder that was exported."
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if where == "format":
            raise MdicoError(
                f"bundle {path.parent}: has layout {first['input']!r}, this version of mdico_cube reads 1. "
                "Update mdico_cube or export the bundle again."
            ) from error
        what = f"{where}: {first['msg']}" if where else first["msg"]
        raise MdicoError(f"bundle {path.parent}: {path.name} is damaged ({what}). Export it again.") from error


def check_fit(config: BundleConfig, modality: Modality, steps: Sequence[str]) -> None:
    """Check that a cube's modality is what a bundle's model takes.

    Bands, their order, their units and the number of steps must be equal. Of the steps' dates month and day must agree
    to within a day (a leap year shifts steps that are counted in days); the year may differ.

    Args:
        config: of the bundle.
        modality: of the cube.
        steps: ISO date of each of the cube's steps; one empty string for a modality without time.

    Raises:
        MdicoError: naming each difference.
    """
    found = [*_other_sensor(config, modality), *_other_bands(config, modality), *_other_steps(config.steps, steps)]
    if found:
        raise MdicoError(
            f"bundle {config.name} does not fit this {modality.name}: {'; '.join(found)}. "
            "Build the cube as the bundle needs it, or train a model on this cube."
        )


def _other_sensor(config: BundleConfig, modality: Modality) -> list[str]:
    return [] if config.modality == modality.name else [f"it maps with {config.modality}"]


def _other_bands(config: BundleConfig, modality: Modality) -> list[str]:
    wanted, came = config.bands, modality.band_names
    missing = [name for name in wanted if name not in came]
    extra = [name for name in came if name not in wanted]
    found = [f"missing band {', '.join(missing)}"] if missing else []
    found += [f"extra band {', '.join(extra)}"] if extra else []
    if not found and wanted != came:
        found.append(f"bands in another order, needs {', '.join(wanted)}, came {', '.join(came)}")
    units = dict(zip(came, modality.units, strict=True))
    for name, unit in zip(wanted, config.units, strict=True):
        if name in units and units[name] != unit:
            found.append(f"band {name} needs unit {unit}, came {units[name]}")
    return found


def _other_steps(wanted: Sequence[str], came: Sequence[str]) -> list[str]:
    if len(wanted) != len(came):
        return [f"needs {len(wanted)} time steps, came {len(came)}"]
    differ = [f"{w or 'no date'} (came {c or 'no date'})" for w, c in zip(wanted, came, strict=True) if _apart(w, c)]
    shown = ", ".join(differ[:3]) + (f" and {len(differ) - 3} more" if len(differ) > 3 else "")
    return [f"steps start on other days of the year: {shown}"] if differ else []


def _apart(wanted: str, came: str) -> bool:
    if not wanted or not came:
        return wanted != came
    days = abs(_day_of_year(wanted) - _day_of_year(came))
    return min(days, _YEAR - days) > 1


def _day_of_year(step: str) -> int:
    day = date.fromisoformat(step)
    return date(2000, day.month, day.day).timetuple().tm_yday
