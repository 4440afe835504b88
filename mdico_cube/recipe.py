"""One YAML recipe in, one frozen Recipe out: every choice of a run, checked before anything is read. Builds nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from mdico_cube.errors import MdicoError
from mdico_cube.spec import LabelClass, Period, Resampling

Reducer = Literal["median", "mean", "medoid", "first", "count"]
Precision = Literal["32-true", "bf16"]
Backend = Literal["auto", "zarr", "tensorstore"]
MapOutput = Literal["probabilities", "entropy", "observations"]
SplitBy = Literal["blocks", "group", "year"]
WeatherKind = Literal["instant", "mean", "min", "max", "sum", "per_day", "since_midnight"]
Code = Annotated[int, Field(ge=0, le=15)]
Dilation = Annotated[int, Field(ge=0, le=64)]
Orbit = Literal["both", "ascending", "descending", "split"]
ORBIT = "sat:orbit_state"
"""Property of an item that tells its orbit direction."""
AssetKeys = str | Annotated[tuple[str, ...], Field(min_length=1)]
"""Asset key, or several of which an item has one."""
Share = Annotated[float, Field(ge=0, le=1)]
Day = Annotated[str, BeforeValidator(lambda value: _day(value))]


class Section(BaseModel):
    """A part of a recipe: frozen, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


def _no_twice(values: Sequence[object]) -> None:
    twice = [str(value) for value, count in Counter(values).items() if count > 1]
    if twice:
        raise ValueError(f"names {', '.join(twice)} twice: name each once")


def _day(value: object) -> str:
    text = str(value)
    try:
        Period(text, text).steps()
    except MdicoError as error:
        raise ValueError(str(error).removeprefix("period: ").removesuffix(".")) from error
    return text


class Area(Section):
    """Where: exactly one of bbox, bounds, geojson or tile."""

    bbox: tuple[float, float, float, float] | None = None
    """West, south, east, north in degrees (EPSG:4326); west > east crosses the antimeridian."""
    bounds: tuple[float, float, float, float] | None = None
    """Left, bottom, right, top in the units of `crs`; `crs` must then be given."""
    geojson: Path | None = None
    """GeoJSON file in degrees; the cube covers its bounding box, over the antimeridian where that is shorter."""
    tile: str | None = None
    """Sentinel-2 tile by its name in the Military Grid, such as 31UFS: its 109.8 km square, in its own UTM zone."""
    crs: str = "auto"
    """Grid of the cube: "auto" = the UTM zone of the area's centre, or any code such as "EPSG:3035"."""
    resolution: Annotated[float, Field(gt=0)] = 10.0
    """Pixel size in units of the CRS."""

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        given = [key for key in ("bbox", "bounds", "geojson", "tile") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of bbox, bounds, geojson, tile (got {', '.join(given) or 'none'})")
        if self.bounds is not None and self.crs == "auto":
            raise ValueError("bounds are in the units of a CRS: set crs, for example EPSG:32631")
        box = self.bbox or self.bounds
        backwards = box is not None and (box[0] == box[2] or (box[0] > box[2] and self.bbox is None))
        if box is not None and (backwards or box[1] >= box[3]):
            raise ValueError(f"must run from the lower left to the upper right corner, came {list(box)}")
        if self.bbox is not None and not (
            max(map(abs, self.bbox[::2])) <= 180 and max(map(abs, self.bbox[1::2])) <= 90
        ):
            raise ValueError(f"bbox is in degrees of longitude and latitude, came {list(self.bbox)}")
        return self


class PeriodSection(Section):
    """When: first and last day belong to the period, and to every window and season."""

    start: str
    """First day, ISO date; left out where windows say it."""
    end: str
    """Last day, ISO date; left out where windows say it."""
    step: str = "MS"
    """Time step: a pandas offset (MS = calendar months, 10D = ten days), dekad (days 1-10, 11-20, 21 to the month's
    end), or season (one step per season)."""
    season: tuple[str, str] | None = None
    """Only these days of each year, as [month-day, month-day], for example ["10-01", "03-31"]; it may run over the turn
    of the year. Each season is cut into steps of its own."""
    windows: tuple[tuple[str, str], ...] = ()
    """The steps themselves, as [first day, last day] each: of any length, in order, without overlap, with or without
    gaps. They take the place of start, end, step and season."""

    @model_validator(mode="before")
    @classmethod
    def _ends_of_windows(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        data = dict(value)
        windows = data.get("windows")
        if isinstance(windows, list | tuple) and all(isinstance(w, list | tuple) and len(w) == 2 for w in windows):
            data["windows"] = windows = [[str(day) for day in window] for window in windows]
            if windows:
                ends = {"start": windows[0][0], "end": windows[-1][1]}
                said = {key: str(data[key]) for key in ends if key in data}
                if not said.items() <= ends.items() or data.get("season") or data.get("step", "MS") != "MS":
                    raise ValueError("windows are the steps themselves: leave out start, end, step and season")
                data |= ends
        return data

    @field_validator("start", "end", mode="before")
    @classmethod
    def _dates_as_text(cls, value: Any) -> str:
        return _day(value)

    @model_validator(mode="after")
    def _steps(self) -> Self:
        if self.step == "season" and self.season is None:
            raise ValueError('step: season needs a season, for example ["10-01", "03-31"]')
        return self

    @property
    def period(self) -> Period:
        """The same as a Period."""
        return Period(self.start, self.end, self.step, self.season, self.windows)


class StoreVariable(Section):
    """How one variable of a weather store is to be understood."""

    name: str
    """Variable in the store."""
    kind: WeatherKind = "instant"
    """What one value is: a moment; the mean, min, max or sum over the time to the next value; per_day = the mean daily
    sum, as in ERA5's monthly means; since_midnight = the running sum since 00:00 UTC, as in ERA5-Land."""
    unit: str
    """Unit in the store, for example m for rain; a store that says another one itself is refused."""
    scale: float = 1.0
    """Factor beside the unit's own: -1 turns ERA5's downward-positive evaporation around."""
    missing: float | None = None
    """A value that stands for "not known" beside NaN: AgERA5 writes temperatures of 0."""
    asset: str | None = None
    """Asset key, where each variable has a store of its own; null = the source's."""


class StoreRules(Section):
    """How weather stands in Zarr stores on a latitude-longitude grid."""

    asset: str = "data"
    """Asset key of the Zarr store."""
    items: tuple[str, ...] = ()
    """Item ids to read, where a collection holds different things; none = every item."""
    every: str = "1h"
    """Pandas offset between values: 1h, 3h, 1D, MS."""
    stamp: Literal["start", "end"] = "start"
    """Which end of its interval a mean, minimum, maximum or sum is dated by; ERA5's hourly rain is dated by the end."""
    coverage: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of a step's values that must be known for its mean, minimum or maximum; a sum needs every one."""
    variables: Annotated[dict[str, StoreVariable], Field(min_length=1)]
    """Band -> variable."""
    orography: StoreVariable | None = None
    """Height of the cells' ground: metres, or geopotential in m2 s-2; null where the source does not tell."""


class Source(Section):
    """How one modality is found in a catalog. A recipe's values override the catalog file's."""

    collection: str
    """STAC collection id."""
    assets: dict[str, AssetKeys] = {}
    """Band -> asset key, where it differs from the band's name; several keys where missions differ: the first that an
    item has is read."""
    quality: AssetKeys | None = None
    """Asset key of the quality layer (SCL, QA_PIXEL); null where the catalog has none."""
    offset: Literal["baseline", "declared", "none"] = "none"
    """Where the reflectance offset is known from: the processing baseline (>= 04.00 means -1000 counts),
    raster:bands as declared by the item, or none because the counts are already harmonised."""
    nodata: float | None = None
    """Source value that means no data, where the asset does not say."""
    query: dict[str, Any] = {}
    """Item properties that must be equal, for example {"platform": "sentinel-2b"}, or compared, for example
    {"eo:cloud_cover": {"lt": 60}}: eq, neq, lt, lte, gt, gte, in. An API filters by them where it can; they are checked
    on every item in any case."""
    hide: tuple[Code, ...] | None = None
    """Classes (Sentinel-2 SCL) or bits (Landsat QA_PIXEL) of the quality layer that hide the ground; null takes the
    sensor's own."""
    dilate: Dilation = 0
    """Pixels of the cube's grid by which hidden ground is widened."""
    zarr: StoreRules | None = None
    """Weather only: how it stands in Zarr stores."""

    def keys(self, band: str) -> tuple[str, ...]:
        """Asset keys a band may stand under, the usual one first."""
        return _several(self.assets.get(band, band))

    @property
    def quality_keys(self) -> tuple[str, ...]:
        """Asset keys the quality layer may stand under, the usual one first; none where there is no layer."""
        return () if self.quality is None else _several(self.quality)

    @field_validator("query")
    @classmethod
    def _comparisons(cls, value: dict[str, Any]) -> dict[str, Any]:
        return _known_comparisons(value)


COMPARISONS = ("eq", "neq", "lt", "lte", "gt", "gte", "in")
"""Words of a query, as STAC APIs know them."""


def _several(keys: AssetKeys) -> tuple[str, ...]:
    return (keys,) if isinstance(keys, str) else keys


def _known_comparisons(query: dict[str, Any]) -> dict[str, Any]:
    for key, value in query.items():
        unknown = [word for word in value if word not in COMPARISONS] if isinstance(value, dict) else []
        if unknown:
            raise ValueError(f"{key} is compared by {unknown[0]!r}: use one of {', '.join(COMPARISONS)}")
        if isinstance(value, dict) and not isinstance(value.get("in", []), list):
            raise ValueError(f"{key}: `in` needs a list of values, came {value['in']!r}")
    return query


class SourceOverride(Section):
    """Parts of a Source to replace for this recipe."""

    collection: str | None = None
    assets: dict[str, AssetKeys] | None = None
    quality: AssetKeys | None = None
    offset: Literal["baseline", "declared", "none"] | None = None
    nodata: float | None = None
    query: dict[str, Any] | None = None
    hide: tuple[Code, ...] | None = None
    dilate: Dilation | None = None
    zarr: StoreRules | None = None

    @field_validator("query")
    @classmethod
    def _comparisons(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        return None if value is None else _known_comparisons(value)


class ModalitySection(Section):
    """One modality of the cube."""

    bands: tuple[str, ...] | None = None
    """Bands to keep, in this order; null keeps the sensor's default set."""
    reducer: Reducer | None = None
    """How the observations of one step become one value; null takes the sensor's default."""
    resampling: Resampling | None = None
    """How values between source pixels are found: nearest, bilinear, cubic or average. null takes each band's own
    (bilinear for reflectance and backscatter, cubic for terrain), and the average where the grid is at least twice as
    coarse as the source. Masks are always nearest."""
    orbit: Orbit = "both"
    """Sentinel-1 only: both directions in one group, one of them, or split: a group for each, which other sections name
    sentinel1_ascending and sentinel1_descending (sentinel1 then means both groups)."""
    lapse_rate: Annotated[float, Field(ge=0, le=15)] = 6.5
    """Weather only: kelvin per kilometre by which temperatures are brought from the height of the source's cells to
    the height of the pixels, where both are known; 0 leaves them as they are."""
    catalog: str | None = None
    """Catalog to find this modality in, where it is not the recipe's: a file in catalogs/, or a path to one."""
    href: str | None = None
    """Where that catalog is; null takes the catalog file's own."""
    source: SourceOverride = SourceOverride()
    """Changes to the catalog's description of this modality."""

    @field_validator("bands")
    @classmethod
    def _some(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and not value:
            raise ValueError("name at least one band, or leave bands out for the sensor's default set")
        _no_twice(value or ())
        return value


class ReadSection(Section):
    """How files are read over a network that fails now and then."""

    engine: Literal["odc-stac", "stackstac"] = "odc-stac"
    """What reads scenes onto the grid. Both give the same pixels where source and grid are aligned; odc-stac places
    them exactly also where they are not."""
    retries: Annotated[int, Field(ge=0)] = 5
    """Further tries after a passing fault: a busy or failing server, a timeout, a body cut short. A file that is not
    there or is no raster is never asked for twice."""
    backoff: Annotated[float, Field(ge=0)] = 0.5
    """Seconds before the second try; doubled before each further one, up to a minute, and then shortened by chance by
    up to a half so that readers do not come back all at once."""
    timeout: Annotated[int, Field(ge=1)] = 30
    """Seconds in which a server must answer, and in which a download may stay under 1 kB/s."""
    per_host: Annotated[int, Field(ge=1)] = 16
    """Files read at once from one host, by each process."""
    failed: Literal["stop", "gap"] = "stop"
    """What becomes of a shard when a file stays unreadable: stop = it counts as failed and is built again with
    --resume; gap = it is composed of the other scenes, and the ledger lists every read that failed."""


class FallbackSection(Section):
    """Another catalog, for acquisitions whose files the first one cannot give."""

    catalog: str
    """Name of a file in catalogs/, or a path to one."""
    href: str | None = None
    """Where it is: a path relative to the recipe, or a URL; null takes the catalog file's own."""


class StoreSection(Section):
    """Where the cube lies, and how."""

    target: str | None = None
    """A folder (relative to the recipe) or an address such as s3://bucket/region/cube.zarr; null = cube.zarr, or
    cube.icechunk, in the output folder. Endpoint and credentials come from the environment (AWS_ENDPOINT_URL,
    AWS_ACCESS_KEY_ID, ...), never from here."""
    kind: Literal["zarr", "icechunk"] = "zarr"
    """zarr = plain Zarr v3; icechunk = a repository that takes each wave of shards in one commit."""
    chunk: Annotated[int, Field(ge=1)] = 64
    """Side of an inner chunk in pixels."""
    shard: Annotated[int, Field(ge=1)] = 512
    """Side of a shard in pixels: the unit of work, of resume and of files."""
    level: Annotated[int, Field(ge=1, le=22)] = 3
    """Of compression (Zstandard): higher is smaller and slower. `mdico tune-layout` measures these three on a disk."""
    wave: Annotated[int, Field(ge=1)] = 64
    """Shards per commit (icechunk)."""

    @model_validator(mode="after")
    def _multiple(self) -> Self:
        if self.shard % self.chunk:
            raise ValueError(f"shard ({self.shard}) must be a multiple of chunk ({self.chunk})")
        _, is_address, rest = (self.target or "").partition("://")
        if is_address and ("?" in rest or "@" in rest.split("/")[0]):
            raise ValueError("target carries no user name, password or query: put credentials into the environment")
        return self


class ClusterSection(Section):
    """Where the shards of a cube are built. It decides how fast, never what."""

    kind: Literal[
        "auto", "loop", "threads", "local", "scheduler", "slurm", "pbs", "sge", "lsf", "oar", "moab", "htcondor",
        "gateway", "kubernetes",
    ] = "auto"  # fmt: skip
    """Who works: loop = one shard after the other in this process; threads = some at once in this process; local =
    Dask worker processes on this machine; scheduler = a Dask scheduler that runs already (address); slurm, pbs, sge,
    lsf, oar, moab, htcondor = a batch system (dask-jobqueue); gateway and kubernetes = dask-gateway and
    dask-kubernetes. auto takes scheduler where an address is given, local for several workers, else loop."""
    workers: Annotated[int, Field(ge=1)] | None = None
    """Shards built at once: threads, worker processes, or jobs of a batch system; null = one per processor, and one
    in all for auto."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """Files that one shard reads at once; null = the processors of this machine shared among the workers."""
    memory: str | None = None
    """Memory of one local worker, such as 4GB; null = an equal share of this machine's."""
    adapt: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1)]] | None = None
    """Fewest and most workers; the cluster then grows and shrinks with the work."""
    address: str | None = None
    """Address of a running scheduler, such as tcp://10.0.0.1:8786; with gateway, the gateway's."""
    options: dict[str, Any] = {}
    """Handed as they are to the cluster: queue, cores, walltime, image ... They are never stored in the cube."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.kind == "scheduler" and self.address is None:
            raise ValueError("kind scheduler needs the scheduler's address, for example tcp://10.0.0.1:8786")
        if self.adapt is not None and self.adapt[0] > self.adapt[1]:
            raise ValueError(f"adapt is [fewest, most], came {list(self.adapt)}")
        if self.adapt is not None and self.kind in ("loop", "threads", "scheduler"):
            raise ValueError(f"kind {self.kind} cannot adapt: leave adapt out, or use another kind")
        return self

    @property
    def settled(self) -> str:
        """The kind with auto decided."""
        if self.kind != "auto":
            return self.kind
        if self.address is not None:
            return "scheduler"
        return "local" if self.adapt is not None or (self.workers or 1) > 1 else "loop"


class ClassSection(Section):
    """One class: what it is called in the label file, on the map, and its colour."""

    name: str
    source: int | str | None = None
    """Value in the label file; null means the name itself."""
    color: Annotated[str, Field(pattern="^#[0-9a-fA-F]{6}$")] = "#888888"

    @property
    def key(self) -> int | str:
        """The value to look for in the label file."""
        return self.name if self.source is None else self.source


class LabelSection(Section):
    """What is known on the ground: a raster or a vector file."""

    path: Path
    """GeoTIFF, GeoPackage, GeoParquet or GeoJSON; relative to the recipe."""
    attribute: str | None = None
    """Column with the class (vector files)."""
    group: str | None = None
    """Column with the parcel or site id (vector files); no group may stand on both sides of a split."""
    date: str | None = None
    """Column with the day or year the label was taken (vector files), for `samples.split: year`."""
    classes: Annotated[tuple[ClassSection, ...], Field(min_length=1, max_length=255)]
    """Classes in map order: the first is written as 1. Values in the file that are not listed count as unlabelled."""

    @field_validator("classes")
    @classmethod
    def _each_once(cls, value: tuple[ClassSection, ...]) -> tuple[ClassSection, ...]:
        _no_twice([entry.name for entry in value])
        _no_twice([str(entry.key) for entry in value])
        return value

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
    target: Literal["dense", "centre"] = "dense"
    """Which pixels of a window are labelled: all whose class is known, or the centre pixel alone."""
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


class EncoderSection(Section):
    """The network that turns a series into an embedding."""

    name: str = "tempcnn"
    """tempcnn, ltae or gru; a name that is not known is refused before anything is read."""
    width: Annotated[int, Field(ge=2, multiple_of=2)] = 128
    """Embedding width d."""
    hidden: Annotated[int, Field(ge=1)] = 128
    """Channels of each convolution."""
    dense: Annotated[int, Field(ge=1)] = 512
    """Width of the dense layer before the embedding."""
    kernel: Annotated[int, Field(ge=1)] = 5
    """Length of each convolution in time steps; odd."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    heads: Annotated[int, Field(ge=1)] = 8
    """Attention heads (ltae)."""


class MDiCoSection(Section):
    """Options of MDiCo (Mena et al., Machine Learning 114, 2025)."""

    discriminate: Literal["unused", "shared"] = "unused"
    """What the second modality head reads: "unused" = the paper's figure, "shared" = the public code."""
    contrastive_reduction: Literal["sum", "mean"] = "mean"
    """"sum" over ordered pairs as in the paper, or the mean scaled so that two modalities equal the paper."""
    temperature: Annotated[float, Field(gt=0)] = 0.1
    """NT-Xent temperature."""
    main: Annotated[float, Field(ge=0)] = 1.0
    auxiliary: Annotated[float, Field(ge=0)] = 1.0
    modality: Annotated[float, Field(ge=0)] = 1.0
    contrastive: Annotated[float, Field(ge=0)] = 1.0
    """Weights of the four losses; 0 switches one off."""
    contrast_pixels: Annotated[int, Field(ge=2)] = 1024
    """At most this many pixels of a batch enter the contrastive loss (patches have B x H x W of them)."""


class FullCoSection(Section):
    """Options of FullCo and Co-Miss (poster, Mena et al. 2025)."""

    contrastive: Annotated[float, Field(ge=0)] = 1.0
    modality: Annotated[float, Field(ge=0)] = 1.0
    collaboration: Annotated[float, Field(ge=0)] = 1.0
    """Weights of the losses beside the main one; 0 switches one off."""
    temperature: Annotated[float, Field(gt=0)] = 0.5
    """Of the distillation."""
    contrast_temperature: Annotated[float, Field(gt=0)] = 0.1
    """Of NT-Xent."""
    contrast_pixels: Annotated[int, Field(ge=2)] = 1024
    """At most this many pixels of a batch enter the contrastive loss."""


class DSensDSection(Section):
    """Options of DSensD+ (Mena et al., IEEE Access 2025)."""

    distillation: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the distillation; 0 switches it off."""
    temperature: Annotated[float, Field(gt=0)] = 0.5
    """Of the distillation."""


class TiMMILSection(Section):
    """Options of the TiMMIL-like transformer."""

    heads: Annotated[int, Field(ge=1)] = 8
    """Attention heads; the encoder's width must be a multiple."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.4


class DisCoMSection(Section):
    """Options of DisCoM-KD (Ienco and Dantas, BMVC 2024)."""

    adversarial: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the adversary that must not tell the modalities apart by their shared space."""
    orthogonal: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the overlap between the spaces."""


class PlusSection(Section):
    """Options of MDiCo-plus."""

    distillation: Annotated[float, Field(ge=0)] = 1.0
    """Weight of what a sensor learns from all of them together; 0 leaves the independent baseline."""
    temperature: Annotated[float, Field(gt=0)] = 2.0
    """Of the distillation."""
    unlabelled: Annotated[float, Field(gt=0)] = 3.0
    """Unlabelled windows for each labelled one in a training batch, where samples.unlabelled gives any."""


class TrainSection(Section):
    """The training loop."""

    epochs: Annotated[int, Field(ge=1)] = 30
    batch: Annotated[int, Field(ge=2)] = 128
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    """Adam's step size; the peak of the one-cycle schedule."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["constant", "onecycle"] = "onecycle"
    """One cycle of the step size (Smith and Topin, 2019), or a constant one as in the methods' papers."""
    patience: Annotated[int, Field(ge=1)] = 5
    """Epochs without a better validation loss before training stops."""
    min_delta: Annotated[float, Field(ge=0)] = 0.01
    """What counts as better."""
    keep: Literal["best", "last"] = "last"
    """"last" runs every epoch and keeps the last one's weights, as suits the one-cycle schedule; "best" stops early and
    keeps the epoch with the lowest validation loss, as in the methods' papers."""
    average: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay per step of an exponential moving average of the weights, such as 0.99; the average is validated, kept and
    exported. 0 = none."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    loggers: tuple[Literal["csv", "tensorboard"], ...] = ("csv",)


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


class ColearnSection(Section):
    """Which methods learn from which modalities."""

    modalities: tuple[str, ...]
    """At least two: each is trained with the others and then predicts alone."""
    methods: Annotated[tuple[str, ...], Field(min_length=1)] = ("independent", "mdico")
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0,)
    protocol: Literal["honest", "paper"] = "honest"
    """"honest" stops early on an inner validation split; "paper" on the scored fold, only to compare with
    published figures."""
    encoder: EncoderSection = EncoderSection()
    mdico: MDiCoSection = MDiCoSection()
    fullco: FullCoSection = FullCoSection()
    dsensd: DSensDSection = DSensDSection()
    timmil: TiMMILSection = TiMMILSection()
    discom: DisCoMSection = DisCoMSection()
    plus: PlusSection = PlusSection()
    train: TrainSection = TrainSection()
    augment: AugmentSection = AugmentSection()

    @field_validator("methods", "seeds")
    @classmethod
    def _each_once(cls, value: tuple[object, ...]) -> tuple[object, ...]:
        _no_twice(value)
        return value

    @field_validator("modalities")
    @classmethod
    def _two(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < 2:
            raise ValueError(
                f"co-learning needs at least two different modalities, came {list(value)}: "
                "add another modality of the cube"
            )
        _no_twice(value)
        return value


class MapSection(Section):
    """Which maps are drawn."""

    modalities: tuple[str, ...] | None = None
    """Sensors to map with, one at a time; null = every co-learned one."""
    methods: tuple[str, ...] | None = None
    """Methods to map with; null = every trained one."""
    seeds: Literal["first", "all"] = "first"
    """Map with the first seed's model or with every seed's (scores then come with a spread)."""
    pixels: Annotated[int, Field(ge=1)] = 1024
    """Pixels that go through the model at once: small enough to stay in the processor's cache."""
    precision: Precision = "32-true"
    """Arithmetic of the model: bf16 is about twice as fast where the processor knows it and changes a few classes; the
    share is measured on the validation windows and written into the bundle's scores and the map's attributes."""
    outputs: tuple[MapOutput, ...] = ()
    """A map's extras beside class and confidence: probabilities and entropy in percent, observations = valid steps."""


class LoaderSection(Section):
    """How windows reach the trainer. Nothing here changes a window."""

    source: Literal["store", "cube"] = "store"
    """"store" cuts every window once into the samples store, for many epochs or another machine; "cube" reads each
    epoch's windows from the cube, and the samples store holds positions, folds and labels only."""
    workers: Annotated[int, Field(ge=1)] = 1
    """How many read ahead at the same time. Batches do not depend on it."""
    processes: bool = False
    """Read in processes of their own instead of threads: for trainers whose Python is busy, as on a GPU."""
    buffer: Annotated[int, Field(ge=1)] = 64
    """Megabytes of windows read together and shuffled among each other; larger mixes windows of more chunks."""
    backend: Backend = "auto"
    """What decodes the cube with source: cube: this project's own reader where it can, zarr, or tensorstore."""


class Recipe(Section):
    """The whole run."""

    name: Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Short name, used in titles."""
    output: Path
    """Folder for cube, samples, models, maps and report; relative to the recipe."""
    area: Area
    period: PeriodSection
    catalog: str
    """Name of a file in catalogs/ ("local"), or a path to one."""
    href: str | None = None
    """Where the catalog is: a path relative to the recipe, or a URL; null takes the catalog file's own."""
    fallback: tuple[FallbackSection, ...] = ()
    """Other catalogs to look in, in this order, for the same acquisition when a scene's files cannot be read."""
    modalities: Annotated[dict[str, ModalitySection], Field(min_length=1)]
    """Sensor -> options. An empty section takes every default."""
    labels: LabelSection
    samples: SampleSection = SampleSection()
    loader: LoaderSection = LoaderSection()
    colearn: ColearnSection
    maps: MapSection = MapSection()
    read: ReadSection = ReadSection()
    store: StoreSection = StoreSection()
    cluster: ClusterSection = ClusterSection()

    @field_validator("modalities", mode="before")
    @classmethod
    def _empty_sections(cls, value: Any) -> Any:
        return {k: {} if v is None else v for k, v in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="before")
    @classmethod
    def _split_orbits(cls, value: Any) -> Any:
        return _orbits_apart(value) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _orbits_of_radar(self) -> Self:
        for name, section in self.modalities.items():
            if section.orbit != "both" and name != "sentinel1":
                raise ValueError(f"modalities.{name}.orbit is {section.orbit}, but only sentinel1 has orbit directions")
        return self

    @model_validator(mode="after")
    def _known_modalities(self) -> Self:
        for where, names, known, whose in (
            ("colearn.modalities", self.colearn.modalities, tuple(self.modalities), "the recipe's modalities do"),
            ("maps.modalities", self.maps.modalities or (), self.colearn.modalities, "colearn.modalities does"),
            ("samples.coarsen", tuple(self.samples.coarsen), tuple(self.modalities), "the recipe's modalities do"),
            ("samples.min_valid", self.samples.judged, tuple(self.modalities), "the recipe's modalities do"),
            ("maps.methods", self.maps.methods or (), self.colearn.methods, "colearn.methods does"),
        ):
            missing = [name for name in names if name not in known]
            if missing:
                raise ValueError(f"{where} names {', '.join(missing)}, which {whose} not list ({', '.join(known)})")
        if self.colearn.protocol == "honest" and self.samples.validation == 0:
            raise ValueError("samples.validation is 0, but the honest protocol stops training on validation blocks")
        return self


def _orbits_apart(data: dict[str, Any]) -> dict[str, Any]:
    """`sentinel1: {orbit: split}` to one section per direction, wherever the recipe names sentinel1."""
    modalities = data.get("modalities")
    if not isinstance(modalities, dict):
        return data
    radar = modalities.get("sentinel1")
    if not isinstance(radar, dict) or radar.get("orbit") != "split":
        return data
    directions = ("sentinel1_ascending", "sentinel1_descending")
    rest = {key: option for key, option in radar.items() if key != "orbit"}

    def apart(names: Any) -> Any:
        if not isinstance(names, list | tuple):
            return names
        return [one for name in names for one in (directions if name == "sentinel1" else (name,))]

    sections = {
        one: rest if one in directions else section for name, section in modalities.items() for one in apart([name])
    }
    named = {
        key: {**data[key], "modalities": apart(data[key]["modalities"])}
        for key in ("colearn", "maps")
        if isinstance(data.get(key), dict) and "modalities" in data[key]
    }
    return {**data, "modalities": sections, **named}


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe file. Relative paths in it count from the file's folder.

    Raises:
        MdicoError: no such file, not YAML, an unknown key or a value outside its rule; the text names each one.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise MdicoError(f"recipe {path}: cannot be read ({error.strerror}). Give the path of a YAML file.") from error
    except UnicodeDecodeError as error:
        raise MdicoError(f"recipe {path}: is not a text file. Give the path of a YAML file.") from error
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise MdicoError(f"recipe {path}: is not YAML{where} ({getattr(error, 'problem', error)}).") from error
    return parse_recipe(data, base=path.resolve().parent, name=str(path))


def parse_recipe(data: Any, base: Path | None = None, name: str = "recipe") -> Recipe:
    """A recipe from a mapping, as a notebook would write it; `base` is what relative paths count from."""
    if not isinstance(data, dict):
        raise MdicoError(
            f"{name}: must be a mapping of sections (name, area, period, ...), came {type(data).__name__}."
        )
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        faults = "; ".join(_sentence(fault) for fault in error.errors())
        raise MdicoError(f"{name}: {faults}.") from error
    return _rebased(recipe, base or Path.cwd())


def _sentence(fault: Any) -> str:
    where = ".".join(str(part) for part in fault["loc"]) or "recipe"
    if fault["type"] == "extra_forbidden":
        known = _keys_at(fault["loc"][:-1])
        close = get_close_matches(str(fault["loc"][-1]), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
        return f"unknown key {where!r}, {hint}"
    if fault["type"] == "missing":
        return f"{where!r} is missing: add it"
    message = fault["msg"].removeprefix("Value error, ")
    came = (
        ""
        if isinstance(fault["input"], dict | BaseModel) or fault["type"] == "value_error"
        else f", came {fault['input']!r}"
    )
    return f"{where}: {message[0].lower() + message[1:]}{came}"


def _keys_at(location: tuple[int | str, ...]) -> list[str]:
    """The keys a section knows, found by walking the JSON schema along a fault's location."""
    schema = Recipe.model_json_schema()
    node: dict[str, Any] = schema
    for part in location:
        node = node.get("properties", {}).get(part, node.get("additionalProperties") or node.get("items") or {})
        options = [node, *node.get("anyOf", []), *node.get("allOf", [])]
        refs = [option["$ref"] for option in options if isinstance(option, dict) and "$ref" in option]
        if refs:
            node = schema["$defs"][refs[0].rsplit("/", 1)[1]]
    return list(node.get("properties", {}))


def _rebased(recipe: Recipe, base: Path) -> Recipe:
    """The recipe with every relative path made absolute."""

    def under(path: Path) -> Path:
        return path if path.is_absolute() else (base / path).resolve()

    def address(href: str | None) -> str | None:
        return href if href is None or "://" in href else str(under(Path(href)))

    def catalog_at(name: str) -> str:
        return str(under(Path(name))) if name.endswith((".yml", ".yaml")) else name

    area = recipe.area
    if area.geojson is not None:
        area = area.model_copy(update={"geojson": under(area.geojson)})
    labels = recipe.labels.model_copy(update={"path": under(recipe.labels.path)})
    update: dict[str, Any] = {
        "output": under(recipe.output),
        "href": address(recipe.href),
        "area": area,
        "labels": labels,
    }
    if recipe.samples.places is not None:
        places = recipe.samples.places.model_copy(update={"path": under(recipe.samples.places.path)})
        update["samples"] = recipe.samples.model_copy(update={"places": places})
    if recipe.store.target is not None and "://" not in recipe.store.target:
        update["store"] = recipe.store.model_copy(update={"target": str(under(Path(recipe.store.target)))})
    update["catalog"] = catalog_at(recipe.catalog)
    update["fallback"] = tuple(
        FallbackSection(catalog=catalog_at(one.catalog), href=address(one.href)) for one in recipe.fallback
    )
    update["modalities"] = {
        name: section.model_copy(
            update={"catalog": section.catalog and catalog_at(section.catalog), "href": address(section.href)}
        )
        for name, section in recipe.modalities.items()
    }
    return recipe.model_copy(update=update)
