"""A cube opened with xarray in; what people ask of it out, as `cube.mdico`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from mdico_cube.accessor.card import cube_card, cube_text
from mdico_cube.accessor.view import View, named
from mdico_cube.accessor.views import Views
from mdico_cube.cube.layer import layer_from
from mdico_cube.cube.ledger import STATE_NAMES, Ledger
from mdico_cube.cube.target import Location, locate
from mdico_cube.errors import MdicoError
from mdico_cube.maps.predict import predict_map
from mdico_cube.patches.extract import extract_samples
from mdico_cube.patches.samples import SampleStore, open_samples
from mdico_cube.recipe import SampleSection
from mdico_cube.recipe.load import parse_section
from mdico_cube.sensors.registry import SENSORS, WEATHER


@xr.register_datatree_accessor("mdico")  # type: ignore[no-untyped-call, untyped-decorator, unused-ignore]
class CubeAccessor(Views):
    """`cube.mdico` on a cube, or on one of its groups."""

    def __init__(self, tree: xr.DataTree) -> None:
        self._tree = tree

    def _found(self) -> Iterator[View]:
        for name, facts in self._tree.root.attrs.get("mdico_modalities", {}).items():
            modality = layer_from(facts).modality
            node = self._tree if self._tree.name == name else self._tree.children.get(name)
            if node is not None and modality.variable in node.data_vars:  # the ledger has groups of the same names
                yield named(modality, node.to_dataset())

    @property
    def path(self) -> Location:
        """Where the cube lies.

        Raises:
            MdicoError: the tree was not opened from disk.
        """
        source = self._tree.root.encoding.get("source")
        if source is None:
            raise MdicoError("this tree does not know its cube on disk. Open it with `mdico_cube.open_cube`.")
        return locate(source)

    def ledger(self) -> pd.DataFrame:
        """How every shard came about: one row per sensor and shard, written by the build."""
        return pd.DataFrame([row for name in self._views for row in _ledger_rows(self.path, name)])

    def sample(
        self,
        target: str | Path,
        modalities: Sequence[str] | None = None,
        overwrite: bool = False,
        resume: bool = False,
        **options: Any,
    ) -> SampleStore:
        """Split the labels into blocks, draw training windows and cut them from the cube.

        Args:
            target: where the samples go (Zarr v3); the split and the index are kept beside it.
            modalities: which sensors are cut; None takes all.
            overwrite: replace what stands there.
            resume: keep what stands there if it is what would be made.
            options: keys of the recipe's `samples` section, such as patch=1, per_class=300, block=64.

        Raises:
            MdicoError: an unknown option, no labels, or a store that stands there.
        """
        section = parse_section(SampleSection, options, "samples")
        names = tuple(self._views) if modalities is None else tuple(modalities)
        return open_samples(extract_samples(self.path, Path(target), names, section, overwrite, resume))

    def predict(self, bundle: str | Path | Sequence[str | Path], **options: Any) -> xr.Dataset:
        """The map of the whole cube by one sensor's model, lazily: class and confidence (y, x).

        Args:
            bundle: folder of the bundle, or of several: each pixel then takes the best sensor that was observed there.
            options: keys of the recipe's `maps` section, such as outputs=["probabilities"], mask, abstain, least.

        Raises:
            MdicoError: the bundle does not fit the cube, or an unknown option.
        """
        folders = Path(bundle) if isinstance(bundle, str | Path) else [Path(one) for one in bundle]
        return predict_map(self.path, folders, **options)

    def __repr__(self) -> str:
        return cube_text(self._tree, self._views)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return cube_card(self._tree, self._views).html()


@xr.register_dataset_accessor("mdico")  # type: ignore[no-untyped-call, untyped-decorator, unused-ignore]
class GroupAccessor(Views):
    """`dataset.mdico` on the Dataset of one group: the sensor is known by its variable and bands."""

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    def _found(self) -> Iterator[View]:
        images, weather = ((sensor.modality for sensor in some.values()) for some in (SENSORS, WEATHER))
        for modality in (*images, *weather):
            array = self._dataset.data_vars.get(modality.variable)
            if array is not None and set(array["band"].values.tolist()) <= set(modality.band_names):
                yield named(modality, self._dataset)


def _ledger_rows(cube: Location, name: str) -> Iterator[dict[str, Any]]:
    for (row, column), entry in Ledger(cube, name).entries().items():
        yield {
            "modality": name,
            "shard": f"{row},{column}",
            "state": STATE_NAMES[entry.state],
            "items": len(entry.items),
            "valid_fraction": entry.valid_fraction,
            "offsets": "; ".join(sorted(set(entry.offsets.values()))),
            "seconds": entry.seconds,
            "bytes_written": entry.bytes_written,
            "failed_reads": len(entry.failed_reads),
            "error": entry.error,
            "version": entry.version,
            "digest": entry.digest[:8],
        }
