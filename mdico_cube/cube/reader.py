"""A cube in; plain arrays of any block out, or a lazy DataTree for people."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox

from mdico_cube.cube.coarse import CoarseLayer, interpolate, pixel_degrees
from mdico_cube.cube.geozarr import grid_attrs
from mdico_cube.cube.layer import layer_from
from mdico_cube.cube.ledger import STANDS, Ledger
from mdico_cube.cube.remote import reaching
from mdico_cube.cube.shards import BlockReader
from mdico_cube.cube.target import Location, is_consolidated, locate, open_group, open_store
from mdico_cube.errors import MdicoError, some
from mdico_cube.recipe import Backend
from mdico_cube.schema import LABELS, LAPSE_RATE, NO_DATE, OROGRAPHY, UNLABELLED, VERSION, check_cube
from mdico_cube.spec import Array, Bools, Floats, LabelClass, Modality


class CubeReader:
    """A cube as plain arrays: opened once per process, no Dask between a block and its bytes."""

    def __init__(self, path: Location, backend: Backend = "auto") -> None:
        self.path = path = locate(path)
        self._backend = backend
        try:
            with reaching(path):
                self._root = open_group(path)
        except (FileNotFoundError, ValueError, OSError) as error:
            raise MdicoError(f"{path}: is no cube (no Zarr group there). Build one with `mdico build`.") from error
        facts = dict(self._root.attrs)
        if facts.get("mdico_schema") != VERSION:
            raise MdicoError(f"{path}: is not an mdico cube of layout {VERSION}. Build one with `mdico build`.")
        self.attrs: dict[str, Any] = facts
        layers: Any = facts["mdico_modalities"]
        self.layers = {name: layer_from(layer) for name, layer in layers.items()}
        self.modalities: dict[str, Modality] = {name: layer.modality for name, layer in self.layers.items()}
        shape: Any = facts["spatial:shape"]
        transform: Any = facts["spatial:transform"]
        self.geobox = GeoBox(tuple(shape), Affine(*transform), str(facts["proj:wkt2"]))
        self.shape: tuple[int, int] = (int(shape[0]), int(shape[1]))
        self.chunk = int(str(facts["mdico_chunk"]))
        self.shard = int(str(facts["mdico_shard"]))

    @property
    def sharded(self) -> bool:
        """True where chunks lie within shards; False where each chunk is a file of its own."""
        plain = [name for name, modality in self.modalities.items() if not modality.coarse]
        return not plain or self.array(plain[0]).shards is not None

    def steps(self, modality: str) -> tuple[str, ...]:
        """ISO date of each step's first day; one empty string for a modality without time."""
        self._check(modality)
        return self.layers[modality].steps

    def stops(self, modality: str) -> tuple[str, ...]:
        """ISO date of the day after each step's last; nothing for a modality without time."""
        self._check(modality)
        return self.layers[modality].stops

    def array(self, modality: str) -> zarr.Array[Any]:
        """The stored array: (T, C, y, x), (C, y, x) without time, or (T, C, latitude, longitude) where coarse."""
        self._check(modality)
        found = self._root[f"{modality}/{self.modalities[modality].variable}"]
        assert isinstance(found, zarr.Array)
        return found

    def stored(self, modality: str, y: slice, x: slice) -> Array:
        """Stored values (T, C, h, w) of a block; T = 1 without time; a coarse modality is interpolated."""
        if self.modalities[modality].coarse:
            return self._interpolated(modality, y, x)
        values = self._blocks[modality](y, x)
        return values if values.ndim == 4 else values[None]

    def read(self, modality: str, y: slice, x: slice) -> tuple[Floats, Bools]:
        """Physical values (T, C, h, w) float32, 0 where missing, and (T, h, w) True = observed in every band."""
        self._check(modality)
        stored = self.stored(modality, y, x)
        values, seen = np.empty(stored.shape, np.float32), np.empty((len(stored), *stored.shape[2:]), np.bool_)
        self.modalities[modality].storage.fill(stored, values, seen)
        return values, seen

    def coarse(self, modality: str) -> CoarseLayer:
        """A coarse modality on its own grid.

        Raises:
            MdicoError: the cube does not have it.
        """
        self._check(modality)
        return self._coarse_layers[modality]

    def rests_on(self, modality: str) -> tuple[str, ...]:
        """Modalities whose pixels decide what this one reads as: itself, and terrain where temperatures follow it."""
        follows = self.modalities[modality].coarse and self._elevation and self.coarse(modality).follows_ground
        return (modality, "dem") if follows else (modality,)

    def _interpolated(self, modality: str, y: slice, x: slice) -> Floats:
        ground = self.stored("dem", y, x)[0, self._elevation[0]] if len(self.rests_on(modality)) > 1 else None
        return interpolate(self.coarse(modality), *pixel_degrees(self.geobox, y, x), ground)

    @property
    def _elevation(self) -> tuple[int, ...]:
        """Index of the elevation in /dem; nothing where the cube has none."""
        names = self.modalities["dem"].band_names if "dem" in self.modalities else ()
        return (names.index("elevation"),) if "elevation" in names else ()

    @cached_property
    def _coarse_layers(self) -> dict[str, CoarseLayer]:
        return {name: self._coarse_layer(name) for name, modality in self.modalities.items() if modality.coarse}

    def _coarse_layer(self, name: str) -> CoarseLayer:
        layer, node = self.layers[name], self._root[name]
        assert isinstance(node, zarr.Group)
        heights, rate = (np.asarray(found[...]) for found in (node[OROGRAPHY], node[LAPSE_RATE]))  # type: ignore[index]
        return CoarseLayer(
            np.asarray(self._arrays[name][...]),
            np.asarray(layer.latitudes),
            np.asarray(layer.longitudes),
            tuple(band.lapses for band in layer.modality.bands),
            heights,
            float(np.nan_to_num(rate)) / 1000,
        )

    def labels(self, y: slice, x: slice) -> npt.NDArray[np.int16]:
        """Class index (h, w) 0..K-1, -1 = unlabelled.

        Raises:
            MdicoError: the cube has no labels yet.
        """
        stored = self._label_blocks["label"](y, x).astype(np.int16)
        return np.where(stored == UNLABELLED, np.int16(-1), stored)

    def values(self, y: slice, x: slice) -> Floats:
        """The value known on the ground (h, w), NaN = unlabelled.

        Raises:
            MdicoError: the labels are classes.
        """
        read = self._label_blocks.get("value")
        if read is None:
            raise MdicoError(f"{self.path}: its labels are classes. Name values in labels.values and build again.")
        return np.asarray(read(y, x), dtype=np.float32)

    def parcels(self, y: slice, x: slice) -> npt.NDArray[np.int32] | None:
        """Parcel number (h, w), 0 = none; None where the labels carry no groups."""
        read = self._label_blocks.get("parcel")
        return None if read is None else read(y, x).astype(np.int32)

    @property
    def value(self) -> str | None:
        """Name of the value that the labels hold; None where they are classes."""
        return self.label_facts.get("value")

    @cached_property
    def parcel_dates(self) -> npt.NDArray[np.datetime64] | None:
        """Day the label of each parcel was taken (parcels + 1,), not-a-time where unknown; None without dates."""
        if f"{LABELS}/parcel_date" not in self._root:
            return None
        found = np.asarray(self._labels("parcel_date")[...]).astype(np.int64)
        return np.where(found == NO_DATE, np.datetime64("NaT"), found.astype("datetime64[D]")).astype("datetime64[D]")

    @property
    def has_labels(self) -> bool:
        """True once the labels stand on the grid."""
        return LABELS in self._root and "digest" in self._root[LABELS].attrs

    @property
    def label_facts(self) -> dict[str, Any]:
        """Attributes of the labels: source, legend, digest."""
        return {key: fact for key, fact in self._label_group.attrs.items() if key not in grid_attrs(self.geobox)}

    @property
    def legend(self) -> tuple[LabelClass, ...]:
        """Classes of the labels, in index order."""
        return tuple(LabelClass(**entry) for entry in self.label_facts["legend"])

    def identity(self, modalities: Sequence[str]) -> str:
        """SHA-256 of what decides the pixels of these modalities and the labels: it changes when they are rebuilt."""
        facts: list[Any] = [list(self.geobox.affine)[:6], self.shape, str(self.attrs["proj:wkt2"])]
        for name in dict.fromkeys(part for one in modalities for part in self.rests_on(one)):
            facts.append([name, hashlib.sha256(Ledger(self.path, name).digests().tobytes()).hexdigest()])
        facts.append(self.label_facts if self.has_labels else {})
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def check_complete(self, modalities: Sequence[str]) -> None:
        """Raise MdicoError unless every shard of these modalities was built."""
        for name in modalities:
            self._check(name)
        for name in dict.fromkeys(part for one in modalities for part in self.rests_on(one)):
            left = int((~np.isin(Ledger(self.path, name).states(), STANDS)).sum())
            if left:
                raise MdicoError(f"{self.path}: lacks {some(left, 'shard')} of {name}. Run `mdico build --resume`.")

    @cached_property
    def _arrays(self) -> dict[str, zarr.Array[Any]]:
        return {name: self.array(name) for name in self.modalities}

    @cached_property
    def _blocks(self) -> dict[str, BlockReader]:
        plain = [name for name, modality in self.modalities.items() if not modality.coarse]
        return {name: BlockReader(self.array(name), self._backend) for name in plain}

    @cached_property
    def _label_blocks(self) -> dict[str, BlockReader]:
        names = [name for name in ("label", "parcel", "value") if name in self._label_group]
        return {name: BlockReader(self._labels(name), self._backend) for name in names}

    @property
    def _label_group(self) -> zarr.Group:
        if not self.has_labels:
            raise MdicoError(f"{self.path}: has no labels. Run `mdico build` with a labels section.")
        group = self._root[LABELS]
        assert isinstance(group, zarr.Group)
        return group

    def _labels(self, name: str) -> zarr.Array[Any]:
        array = self._label_group[name]
        assert isinstance(array, zarr.Array)
        return array

    def _check(self, modality: str) -> None:
        if modality not in self.modalities:
            raise MdicoError(f"{self.path}: has no {modality}. It has {', '.join(self.modalities)}.")


def open_reader(path: Location, backend: Backend = "auto") -> CubeReader:
    """The cube's reader, opened once per process, location and backend."""
    return _open_cached(locate(path), backend)


def forget_readers() -> None:
    """Open every cube anew from now on: its metadata has changed."""
    _open_cached.cache_clear()


@lru_cache(maxsize=8)
def _open_cached(path: Location, backend: Backend) -> CubeReader:
    return CubeReader(path, backend)


def open_cube(path: Location) -> xr.DataTree:
    """The cube as a lazy DataTree for people: physical values, NaN where missing, coordinates and CRS on every group.

    Raises:
        MdicoError: there is no cube, or it breaks the layout.
    """
    place = open_reader(path).path
    tree = xr.open_datatree(
        open_store(place),  # type: ignore[arg-type]
        engine="zarr",
        zarr_format=3,
        consolidated=is_consolidated(place),
        decode_coords="all",
        chunks={},
        mask_and_scale=True,
    )
    tree.encoding["source"] = str(place)
    check_cube(tree)
    return tree


def cube_recipe(path: Location) -> dict[str, Any]:
    """The recipe a cube was built from."""
    recipe: dict[str, Any] = json.loads(str(open_reader(path).attrs["mdico_recipe"]))
    return recipe
