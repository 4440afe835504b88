"""A cube on disk: created from metadata first, written by whole shards, read as plain arrays or as a DataTree."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from zarr.codecs import ZstdCodec

from mdico_cube.cube.ledger import DONE, Ledger, create_ledger
from mdico_cube.errors import MdicoError
from mdico_cube.schema import LABELS, STATIC, TEMPORAL, UNLABELLED, VERSION, check_cube
from mdico_cube.spec import Array, Band, Bools, Floats, LabelClass, Modality, Storage

GRID_MAPPING = "spatial_ref"


@dataclass(frozen=True, slots=True)
class Layer:
    """One modality to store: (T, C, y, x), or (C, y, x) without time."""

    modality: Modality
    steps: tuple[str, ...]
    """ISO date of each step's first day; one empty string without time."""


def create_cube(
    path: Path,
    geobox: GeoBox,
    layers: Sequence[Layer],
    chunk: int,
    shard: int,
    attrs: Mapping[str, Any],
    ledger_shape: tuple[int, int],
    overwrite: bool = False,
) -> None:
    """Write the metadata of a cube whose every pixel is still missing. No pixel is computed.

    It carries an empty ledger with `ledger_shape` shards along y and x. It is made in a folder beside `path` and
    renamed, so `path` is a whole cube or does not exist; with `overwrite` a cube that stands there goes last.

    Raises:
        MdicoError: the folder cannot be written.
    """
    draft = path.with_name(f".{path.name}.draft")
    with writing(path):
        shutil.rmtree(draft, ignore_errors=True)
        draft.parent.mkdir(parents=True, exist_ok=True)
        root = xr.Dataset(coords=_grid_coords(geobox), attrs={**_root_attrs(geobox, layers, chunk, shard), **attrs})
        root.to_zarr(draft, mode="w", zarr_format=3, consolidated=False)
        for layer in layers:
            dataset, encoding = _template(geobox, layer, chunk, shard)
            dataset.to_zarr(
                draft,
                group=layer.modality.name,
                mode="a",
                zarr_format=3,
                consolidated=False,
                compute=False,
                encoding=encoding,
            )
            create_ledger(draft, layer.modality.name, ledger_shape)
        if overwrite and path.exists():
            shutil.rmtree(path)
        draft.rename(path)
    _open_cached.cache_clear()


def _grid_coords(geobox: GeoBox) -> dict[Any, Any]:
    return dict(xr_coords(geobox, crs_coord_name=GRID_MAPPING))


def _root_attrs(geobox: GeoBox, layers: Sequence[Layer], chunk: int, shard: int) -> dict[str, Any]:
    return {
        "mdico_schema": VERSION,
        "mdico_modalities": {layer.modality.name: describe_layer(layer) for layer in layers},
        "mdico_chunk": chunk,
        "mdico_shard": shard,
        "proj:code": str(geobox.crs),
        "proj:wkt2": geobox.crs.to_wkt() if geobox.crs else "",
        "spatial:dimensions": ["y", "x"],
        "spatial:shape": list(geobox.shape),
        "spatial:transform": list(geobox.affine)[:6],
        "spatial:bbox": list(geobox.boundingbox.bbox),
    }


def describe_layer(layer: Layer) -> dict[str, Any]:
    """A layer as plain data for JSON attributes; `layer_from` reads it back."""
    facts = asdict(layer.modality)
    if np.isnan(layer.modality.storage.missing):
        facts["storage"]["missing"] = None
    return {**facts, "steps": list(layer.steps)}


def layer_from(facts: Mapping[str, Any]) -> Layer:
    """The layer that `describe_layer` wrote."""
    storage = dict(facts["storage"])
    if storage["missing"] is None:
        storage["missing"] = np.nan
    modality = Modality(
        name=facts["name"],
        variable=facts["variable"],
        bands=tuple(Band(**band) for band in facts["bands"]),
        storage=Storage(**storage),
        temporal=facts["temporal"],
        title=facts["title"],
    )
    return Layer(modality, tuple(facts["steps"]))


def _template(geobox: GeoBox, layer: Layer, chunk: int, shard: int) -> tuple[xr.Dataset, dict[str, Any]]:
    modality, storage = layer.modality, layer.modality.storage
    dims = TEMPORAL if modality.temporal else STATIC
    lead = (len(layer.steps),) * modality.temporal + (len(modality.bands),)
    shape = (*lead, *geobox.shape)
    shards = (*lead, shard, shard)
    empty = da.zeros(shape, chunks=shards, dtype="float32" if storage.scale != 1 else storage.dtype)
    coords = {**_grid_coords(geobox), "band": np.array(modality.band_names, dtype=object)}
    if modality.temporal:
        coords["time"] = np.array(layer.steps, dtype="datetime64[ns]")
    attrs = {"long_name": modality.title, "units": ", ".join(dict.fromkeys(modality.units))}
    dataset = xr.Dataset({modality.variable: (dims, empty, attrs)}, coords=coords)
    encoding: dict[str, Any] = {
        "dtype": storage.dtype,
        "chunks": (*lead, chunk, chunk),
        "shards": shards,
        "grid_mapping": GRID_MAPPING,
        "_FillValue": np.dtype(storage.dtype).type(storage.missing),
        "fill_value": storage.missing,  # what a shard that was never written reads as
        "compressors": [ZstdCodec(level=3)],
    }
    if storage.scale != 1:
        encoding["scale_factor"] = storage.scale
    return dataset, {modality.variable: encoding}


def keep_recipe(path: Path, recipe: str) -> None:
    """Note the recipe (JSON) that the cube's shards are being built from."""
    with writing(path):
        zarr.open_group(path, mode="r+", zarr_format=3).attrs["mdico_recipe"] = recipe
    _open_cached.cache_clear()


class writing:  # noqa: N801 - reads as a phrase: with writing(path)
    """Turn a failed write into one sentence that says what to do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise MdicoError(
                f"{self.path}: cannot be written ({error.strerror or error}). "
                "Free space there or choose another output folder; finished work is kept, go on with --resume."
            ) from error


def write_labels(
    path: Path,
    label: npt.NDArray[np.uint8],
    group: npt.NDArray[np.int32] | None,
    legend: Sequence[LabelClass],
    attrs: Mapping[str, Any],
) -> None:
    """Write /labels: label (y, x) class index with 255 = unlabelled, and parcel (y, x) with 0 = none.

    Nothing is written where the same labels stand already.
    """
    reader = CubeReader(path)
    facts = {**attrs, "legend": [asdict(entry) for entry in legend], "digest": _digest(label, group)}
    if reader.has_labels and reader.label_facts == facts:
        return
    side = (min(reader.shard, label.shape[0]), min(reader.shard, label.shape[1]))
    layers: dict[str, tuple[Array, int]] = {"label": (label, UNLABELLED)}
    if group is not None:
        layers["parcel"] = (group, 0)
    dataset = xr.Dataset(
        {name: (("y", "x"), values) for name, (values, _) in layers.items()},
        coords=_grid_coords(reader.geobox),
        attrs=facts,
    )
    encoding = {
        name: {"chunks": side, "grid_mapping": GRID_MAPPING, "_FillValue": fill} for name, (_, fill) in layers.items()
    }
    with writing(path):
        dataset.to_zarr(path, group=LABELS, mode="w", zarr_format=3, consolidated=False, encoding=encoding)
    _open_cached.cache_clear()


def _digest(*arrays: Array | None) -> str:
    """SHA-256 of the values of some arrays."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(b"-" if array is None else np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


class CubeReader:
    """A cube as plain arrays: opened once per process, no Dask between a block and its bytes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._root = zarr.open_group(path, mode="r", zarr_format=3)
        except (FileNotFoundError, ValueError, OSError) as error:
            raise MdicoError(f"{path}: is no cube (no Zarr group there). Build one with `mdico build`.") from error
        facts = dict(self._root.attrs)
        if facts.get("mdico_schema") != VERSION:
            raise MdicoError(f"{path}: is not an mdico cube of layout {VERSION}. Build one with `mdico build`.")
        self.attrs: dict[str, Any] = facts
        layers: Any = facts["mdico_modalities"]
        self._layers = {name: layer_from(layer) for name, layer in layers.items()}
        self.modalities: dict[str, Modality] = {name: layer.modality for name, layer in self._layers.items()}
        shape: Any = facts["spatial:shape"]
        transform: Any = facts["spatial:transform"]
        self.geobox = GeoBox(tuple(shape), Affine(*transform), str(facts["proj:wkt2"]))
        self.shape: tuple[int, int] = (int(shape[0]), int(shape[1]))
        self.chunk = int(str(facts["mdico_chunk"]))
        self.shard = int(str(facts["mdico_shard"]))

    def steps(self, modality: str) -> tuple[str, ...]:
        """ISO date of each step's first day; one empty string for a modality without time."""
        self._check(modality)
        return self._layers[modality].steps

    def array(self, modality: str) -> zarr.Array[Any]:
        """The stored array: (T, C, y, x), or (C, y, x) without time."""
        self._check(modality)
        found = self._root[f"{modality}/{self.modalities[modality].variable}"]
        assert isinstance(found, zarr.Array)
        return found

    def stored(self, modality: str, y: slice, x: slice) -> Array:
        """Stored values (T, C, h, w) of a block; T = 1 without time."""
        values = np.asarray(self._arrays[modality][..., y, x])
        return values if values.ndim == 4 else values[None]

    def read(self, modality: str, y: slice, x: slice) -> tuple[Floats, Bools]:
        """Physical values (T, C, h, w) float32, 0 where missing, and (T, h, w) True = observed in every band."""
        self._check(modality)
        values, observed = self.modalities[modality].storage.unpack(self.stored(modality, y, x))
        return values, np.asarray(observed.all(axis=1))

    def labels(self, y: slice, x: slice) -> npt.NDArray[np.int16]:
        """Class index (h, w) 0..K-1, -1 = unlabelled.

        Raises:
            MdicoError: the cube has no labels yet.
        """
        stored = np.asarray(self._labels("label")[y, x]).astype(np.int16)
        return np.where(stored == UNLABELLED, np.int16(-1), stored)

    def parcels(self, y: slice, x: slice) -> npt.NDArray[np.int32] | None:
        """Parcel number (h, w), 0 = none; None where the labels carry no groups."""
        if f"{LABELS}/parcel" not in self._root:
            return None
        return np.asarray(self._labels("parcel")[y, x]).astype(np.int32)

    @property
    def has_labels(self) -> bool:
        """True once the labels stand on the grid."""
        return LABELS in self._root

    @property
    def label_facts(self) -> dict[str, Any]:
        """Attributes of the labels: source, legend, digest."""
        return dict(self._label_group.attrs)

    @property
    def legend(self) -> tuple[LabelClass, ...]:
        """Classes of the labels, in index order."""
        return tuple(LabelClass(**entry) for entry in self.label_facts["legend"])

    def identity(self, modalities: Sequence[str]) -> str:
        """SHA-256 of what decides the pixels of these modalities and the labels: it changes when they are rebuilt."""
        facts: list[Any] = [list(self.geobox.affine)[:6], self.shape, str(self.attrs["proj:code"])]
        for name in modalities:
            facts.append([name, hashlib.sha256(Ledger(self.path, name).digests().tobytes()).hexdigest()])
        facts.append(self.label_facts if self.has_labels else {})
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def check_complete(self, modalities: Sequence[str]) -> None:
        """Raise MdicoError unless every shard of these modalities was built."""
        for name in modalities:
            self._check(name)
            left = int((Ledger(self.path, name).states() != DONE).sum())
            if left:
                raise MdicoError(f"{self.path}: {left} shards of {name} are not built. Run `mdico build --resume`.")

    @cached_property
    def _arrays(self) -> dict[str, zarr.Array[Any]]:
        return {name: self.array(name) for name in self.modalities}

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


def open_reader(path: str | Path) -> CubeReader:
    """The cube's reader, opened once per process and path."""
    return _open_cached(Path(path).resolve())


@lru_cache(maxsize=8)
def _open_cached(path: Path) -> CubeReader:
    return CubeReader(path)


def open_cube(path: str | Path) -> xr.DataTree:
    """The cube as a lazy DataTree for people: physical values, NaN where missing, coordinates and CRS on every group.

    Raises:
        MdicoError: there is no cube, or it breaks the layout.
    """
    open_reader(path)
    tree = xr.open_datatree(
        Path(path), engine="zarr", consolidated=False, decode_coords="all", chunks={}, mask_and_scale=True
    )
    check_cube(tree)
    return tree


def cube_recipe(path: str | Path) -> dict[str, Any]:
    """The recipe a cube was built from."""
    recipe: dict[str, Any] = json.loads(str(open_reader(path).attrs["mdico_recipe"]))
    return recipe
