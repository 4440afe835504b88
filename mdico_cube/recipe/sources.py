"""How each modality is found in a catalog and read from it, as a recipe or a catalog file says it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pandas as pd
from pandas.tseries.frequencies import to_offset
from pydantic import Field, field_validator

from mdico_cube.recipe.section import Section, no_twice
from mdico_cube.spec import Resampling

Reducer = Literal["median", "mean", "medoid", "first", "count"]
WeatherKind = Literal["instant", "mean", "min", "max", "sum", "per_day", "since_midnight"]
Code = Annotated[int, Field(ge=0, le=15)]
Dilation = Annotated[int, Field(ge=0, le=64)]
Orbit = Literal["both", "ascending", "descending", "split"]
ORBIT = "sat:orbit_state"
"""Property of an item that tells its orbit direction."""
AssetKeys = str | Annotated[tuple[str, ...], Field(min_length=1)]
"""Asset key, or several of which an item has one."""


class StoreVariable(Section):
    """How one variable of a weather store is to be understood."""

    name: str
    """Variable in the store."""
    kind: WeatherKind = "instant"
    """What one value is: a moment; the mean, min, max or sum over the time to the next value; per_day = the mean daily
    sum, as in ERA5's monthly means; since_midnight = the running sum since 00:00 UTC, as in ERA5-Land."""
    unit: str
    """Unit in the store, for example m for rain; a store that says another one itself is refused, unless that is
    the band's own."""
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

    @field_validator("every")
    @classmethod
    def _forward(cls, value: str) -> str:
        start = pd.Timestamp(0)
        try:
            forward = start + to_offset(value) > start
        except ValueError:
            forward = False
        if not forward:
            raise ValueError(f"{value!r} is no pandas offset that moves on: write 1h, 3h, 1D or MS")
        return value


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


for _name, _field in SourceOverride.model_fields.items():  # the same keys mean the same
    _field.description = Source.model_fields[_name].description
SourceOverride.model_rebuild(force=True)


class ModalitySection(Section):
    """One modality of the cube."""

    bands: tuple[str, ...] | None = None
    """Bands to keep, in this order; null keeps the sensor's default set."""
    reducer: Reducer | None = None
    """How the observations of one step become one value; null takes the sensor's default. count stores their number
    instead; to have it beside a composite, list sentinel2_count (landsat_count, sentinel1_count) as a modality too."""
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
        no_twice(value or ())
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
