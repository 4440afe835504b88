"""Labels, windows, splits and how they are fed, as a recipe says it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from mdico_cube.recipe.section import COLOR, Day, Section, Share, no_twice
from mdico_cube.spec import LabelClass

Backend = Literal["auto", "zarr", "tensorstore"]
SplitBy = Literal["blocks", "group", "year"]


class ClassSection(Section):
    """One class: what it is called in the label file, on the map, and its colour."""

    name: str
    """What it is called in legends and tables."""
    source: int | str | None = None
    """Value in the label file; null means the name itself."""
    color: Annotated[str, Field(pattern=COLOR)] = "#888888"
    """On maps and in charts: # and three pairs of hexadecimal digits."""

    @property
    def key(self) -> int | str:
        """The value to look for in the label file."""
        return self.name if self.source is None else self.source


class ValueSection(Section):
    """A value that is known on the ground, instead of a class."""

    name: Annotated[str, Field(min_length=1)]
    """What it is called in scores and on maps."""
    unit: str = ""
    """Of the values, as scores and maps tell it: t/ha, percent."""
    bins: Annotated[int, Field(ge=1, le=100)] = 10
    """Parts of the values' range. They stand where classes stand when folds are made alike and windows are drawn: at
    most samples.per_class windows of each part."""
    spread: Literal["quantiles", "ranges"] = "quantiles"
    """quantiles: equally many pixels in each part, so that windows are drawn as the values are distributed; ranges:
    parts of equal width, so that rare values count as much as common ones."""
    low: float | None = None
    """Smaller values count as unlabelled."""
    high: float | None = None
    """Larger values count as unlabelled."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low must lie below high, came {self.low:g} and {self.high:g}")
        return self


class LabelSection(Section):
    """What is known on the ground: a raster or a vector file."""

    path: Path
    """GeoTIFF, GeoPackage, GeoParquet or GeoJSON; relative to the recipe."""
    attribute: str | None = None
    """Column with the class or the value (vector files)."""
    group: str | None = None
    """Column with the parcel or site id (vector files); no group may stand on both sides of a split."""
    date: str | None = None
    """Column with the day or year the label was taken (vector files), for `samples.split: year`."""
    classes: Annotated[tuple[ClassSection, ...], Field(max_length=255)] = ()
    """Classes in map order: the first is written as 1. Values in the file that are not listed count as unlabelled."""
    values: ValueSection | None = None
    """In place of classes: the raster or the column holds values, for colearn.task.kind: regression."""

    @field_validator("classes")
    @classmethod
    def _each_once(cls, value: tuple[ClassSection, ...]) -> tuple[ClassSection, ...]:
        no_twice([entry.name for entry in value])
        no_twice([str(entry.key) for entry in value])
        return value

    @model_validator(mode="after")
    def _classes_or_values(self) -> Self:
        if bool(self.classes) == (self.values is not None):
            raise ValueError("give classes, or values for a regression: one of the two")
        return self

    @property
    def legend(self) -> tuple[LabelClass, ...]:
        """Classes with map values 1, 2, 3, ... ; 0 is never used, 255 is nodata."""
        return tuple(LabelClass(c.name, i + 1, c.color.lower()) for i, c in enumerate(self.classes))


class PlaceSection(Section):
    """A vector file of points or polygons to draw windows at."""

    path: Path
    """GeoPackage, GeoParquet, GeoJSON, FlatGeobuf or Shapefile; relative to the recipe."""
    label: str | None = None
    """Column with the class, as in the label file; null takes the cube's label at the window's centre."""
    date: str | None = None
    """Column with the day or year the label was taken."""
    group: str | None = None
    """Column with the parcel, site or tile: no group may stand on both sides of a split; null = each row by itself."""
    window: Literal["centred", "within"] = "centred"
    """Polygons: one window around a point inside the polygon, or every window of the grid that lies wholly within."""


class SampleSection(Section):
    """Which windows train, validate and test."""

    patch: Annotated[int, Field(ge=1)] = 1
    """Window side in pixels; 1 = pixel series."""
    target: Literal["dense", "centre", "patch"] = "dense"
    """Which pixels of a window are labelled: all whose class is known, the centre pixel alone, or the window as a whole
    with the class that most of its labelled pixels carry (models then average what they see in the window)."""
    coarsen: dict[str, Annotated[int, Field(ge=1)] | Literal["patch"]] = {}
    """Modality -> how many times coarser than the grid a model takes it: 3 makes one pixel of 3 x 3 (Landsat's 30 m on
    a 10 m grid), patch makes one series of the whole window (weather). The patch must be a multiple."""
    strategy: Literal["grid", "random", "points", "polygons"] = "grid"
    """Where windows may lie: on a regular grid, at random positions, or at the points or polygons of `places`."""
    stride: Annotated[int, Field(ge=1)] | None = None
    """Grid: pixels from one window to the next; null = the patch (no overlap). A smaller stride overlaps."""
    candidates: Annotated[int, Field(ge=1)] = 100_000
    """Random: about how many positions of the whole area are looked at."""
    places: PlaceSection | None = None
    """Points or polygons: where they are."""
    balance: Literal["capped", "stratified", "balanced"] = "capped"
    """Windows per class: at most `per_class`; in proportion to the classes' shares, `count` in all; or the same number
    of every class, as many as the rarest has."""
    per_class: Annotated[int, Field(ge=1)] = 400
    """At most this many training windows of one class (by the window's centre pixel)."""
    count: Annotated[int, Field(ge=1)] | None = None
    """Stratified: about how many training windows in all; null = per_class times the number of classes."""
    per_group: Annotated[int, Field(ge=1)] | None = None
    """At most this many windows of one class in one parcel or group."""
    block: Annotated[int, Field(ge=1)] = 64
    """Side of a split block in pixels: a block belongs to one fold as a whole."""
    guard: Annotated[int, Field(ge=0)] = 5
    """Pixels kept unused between training and held-out blocks."""
    split: SplitBy = "blocks"
    """What a fold takes as a whole: blocks of the grid, groups (labels.group or places.group), or years."""
    folds: Annotated[int, Field(ge=2)] | None = None
    """Part what is split into so many folds, so that each is tested once over as many runs; null holds out the share
    `test`. Years are always parted: one fold is one year."""
    test_fold: Annotated[int, Field(ge=0)] = 0
    """Which fold is tested in this run, counted from 0; years in ascending order."""
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """Share of blocks for the inner validation split."""
    test: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Share of blocks held out for the scores, unless `folds` is given."""
    min_valid: Share | dict[str, Share] = 0.25
    """Windows with a smaller valid fraction (steps x pixels) in any modality are left out; one number, or one for each
    modality. A modality named with 0 may lack altogether: such a window learns from the others."""
    min_purity: Share = 0.0
    """Windows in which fewer of the labelled pixels carry the centre's class are left out."""
    dates: tuple[Day, Day] | None = None
    """First and last day of labels that are used; labels without a date are left out."""
    observed: tuple[Day, Day] | None = None
    """Every modality with time must have seen the window by the first day's step, and again in the last day's or
    later."""
    unlabelled: Annotated[int, Field(ge=0)] = 0
    """Windows drawn without labels, anywhere but in held-out blocks and near them, for methods that learn from them
    (mdico-plus)."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of split and draw."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError("validation + test must leave blocks for training (sum below 1)")
        if (self.strategy in ("points", "polygons")) != (self.places is not None):
            raise ValueError("places (a vector file) goes with strategy points or polygons: give both or neither")
        odd = [name for name in self.coarsen if self.patch % self.factor(name)]
        if odd:
            raise ValueError(f"coarsen: the patch ({self.patch}) is no multiple of {self.factor(odd[0])} ({odd[0]})")
        if self.folds is not None and self.test_fold >= self.folds:
            raise ValueError(f"test_fold {self.test_fold} does not exist: folds are counted 0 to {self.folds - 1}")
        return self

    @property
    def step(self) -> int:
        """Pixels from one window of the grid to the next."""
        return self.stride or self.patch

    @property
    def judged(self) -> tuple[str, ...]:
        """Modalities with a valid fraction of their own."""
        return tuple(self.min_valid) if isinstance(self.min_valid, dict) else ()

    def may_miss(self, modality: str) -> bool:
        """True where a window without any observation of a modality is used all the same."""
        return isinstance(self.min_valid, dict) and self.min_valid.get(modality) == 0

    def factor(self, modality: str) -> int:
        """Side of the squares of pixels that become one pixel of a modality."""
        factor = self.coarsen.get(modality, 1)
        return self.patch if factor == "patch" else factor

    def least_valid(self, modality: str) -> float:
        """The smallest valid fraction that a window may have in a modality."""
        return self.min_valid.get(modality, 0.0) if isinstance(self.min_valid, dict) else self.min_valid


class AugmentSection(Section):
    """What happens to training windows, alike in every modality, its mask and the labels; never when mapping."""

    flip: bool = False
    """Mirror left to right and top to bottom at random (patches)."""
    rotate: bool = False
    """Turn by quarter turns at random (patches)."""
    shift_steps: Annotated[int, Field(ge=0)] = 0
    """Move whole series by up to so many steps; what comes from outside is not observed."""
    shift_days: Annotated[int, Field(ge=0)] = 0
    """Say that a window was seen up to so many days earlier or later; for encoders that read dates (ltae, gru)."""
    drop_steps: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability that a step of a series is hidden; each sensor by itself."""
    drop_sensor: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability that one sensor of a window is hidden as a whole; never the only one observed."""


class LoaderSection(Section):
    """How windows reach the trainer. Nothing here changes a window."""

    source: Literal["store", "cube"] = "store"
    """"store" cuts every window once into the samples store, for many epochs or another machine; "cube" reads each
    epoch's windows from the cube, and the samples store holds positions, folds and labels only."""
    workers: Annotated[int, Field(ge=1)] = 1
    """How many threads read ahead. Batches do not depend on it."""
    buffer: Annotated[int, Field(ge=1)] = 64
    """Megabytes of windows read together and shuffled among each other; larger mixes windows of more chunks."""
    backend: Backend = "auto"
    """What decodes the cube with source: cube: this project's own reader where it can, zarr, or tensorstore."""
