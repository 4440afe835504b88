"""A cube and one or several sensors' bundles in, what every block of a map takes and how it is computed out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mdico_cube.colearn.bundle_config import check_fit
from mdico_cube.cube.reader import CubeReader, open_reader
from mdico_cube.cube.target import Location, locate
from mdico_cube.errors import MdicoError
from mdico_cube.maps.block import predict_together, predict_windows
from mdico_cube.maps.feed import settled, torch_device
from mdico_cube.maps.forms import Loaded, load
from mdico_cube.maps.gathered import Gathered, Input, read_input
from mdico_cube.maps.mask import AreaMask, area_mask
from mdico_cube.maps.origin import Digests, lacking, shard_digests
from mdico_cube.maps.outputs import NODATA, Bytes, Layers, Variable, stack_depth, variables
from mdico_cube.maps.route import assign, ranked
from mdico_cube.maps.window_cache import BYTES, Windows
from mdico_cube.recipe import MapOptions
from mdico_cube.recipe.load import parse_section
from mdico_cube.spec import Bools, LabelClass

Known = Sequence[Windows | None]
"""Per bundle of a map the windows that were computed already; None for one that looks at single pixels."""
AUTO, FUSED = "auto", "fused"
"""Stand in place of a sensor's name where a map takes the best one at each pixel, or all that were observed."""


@dataclass(frozen=True, slots=True)
class Member:
    """One bundle of a map's plan."""

    path: Path
    digest: str
    """A worker refuses a bundle that was swapped under the plan."""
    sensors: tuple[str, ...]
    """What it reads: one sensor, or all that it fuses."""

    @property
    def loaded(self) -> Loaded:
        """The bundle, loaded once per process.

        Raises:
            MdicoError: it changed since the plan was made, or is damaged.
        """
        current = load(self.path)
        if current.digest != self.digest:
            raise MdicoError(f"bundle {self.path}: changed while the map was being made. Start the map again.")
        return current


@dataclass(frozen=True)
class MapPlan:
    """One cube and bundles that were found to fit: everything a worker needs, and nothing heavy."""

    cube: Location
    members: tuple[Member, ...]
    """One, or several from the best to the last: then each pixel takes the first that was observed there."""
    options: MapOptions = field(default_factory=MapOptions)
    mask: AreaMask | None = None
    device: str = "cpu"
    """What computes: "cpu", "cuda" or one card such as "cuda:1"."""

    @property
    def reader(self) -> CubeReader:
        """The cube, opened once per process."""
        return open_reader(self.cube)

    @property
    def loaded(self) -> Loaded:
        """The (first) bundle, loaded once per process.

        Raises:
            MdicoError: the bundle changed since the plan was made.
        """
        return self.members[0].loaded

    @property
    def routed(self) -> bool:
        """Whether each pixel takes one of several bundles."""
        return len(self.members) > 1

    @property
    def fused(self) -> bool:
        """Whether one bundle reads several sensors."""
        return len(self.members[0].sensors) > 1

    @property
    def modalities(self) -> tuple[str, ...]:
        """The sensors that are read; where one is chosen, from the best to the last."""
        return tuple(name for member in self.members for name in member.sensors)

    @property
    def modality(self) -> str:
        """The sensor, "auto" or "fused"."""
        return AUTO if self.routed else FUSED if self.fused else self.modalities[0]

    @property
    def layers(self) -> Layers:
        """What the map holds beside class and confidence."""
        sensors = self.modalities if self.routed or self.fused else ()
        return Layers.of(self.options, sensors, self.fused, self.task, self.loaded.scale)

    @property
    def task(self) -> str:
        """What the map tells: classes, labels side by side (multilabel), or a value (regression)."""
        return self.loaded.task

    @property
    def classes(self) -> tuple[LabelClass, ...]:
        """The map's legend, in the order of the logits."""
        return self.loaded.classes

    @property
    def variables(self) -> tuple[Variable, ...]:
        """What the map holds."""
        return variables(self.classes, self.layers)

    @cached_property
    def reach(self) -> int:
        """Pixels around a block that are read with it."""
        tilings = [member.loaded.tiling(self.options.window) for member in self.members]
        return max((tiling.reach for tiling in tilings if tiling is not None), default=0)

    @property
    def in_counts(self) -> bool:
        """Whether blocks wait as they are stored: a card's several readers unpack, as one thread feeds it."""
        return self.device == "cpu"

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the map beside the cube, as JSON-ready data."""
        options, judged = self.options, "applicability" in self.options.outputs
        return {
            "bundle": [[member.digest, judged and member.loaded.reference_digest] for member in self.members],
            "precision": options.precision,
            "backend": options.backend,
            "int8": self._quantised(),
            "outputs": sorted(options.outputs),
            "abstain": options.abstain,
            "mask": self.mask and self.mask.digest,
            "window": options.window if self.reach else None,
            "least": options.least if self.routed else None,
            **({"step": options.step} if options.step is not None else {}),
            **({"device": "cuda"} if self.device != "cpu" else {}),
        }

    def _quantised(self) -> list[str] | None:
        """What decides the map in 8-bit integers beside the bundles."""
        if self.options.precision != "int8":
            return None
        return [known.digest for member in self.members for known in [member.loaded.configs[0].int8] if known]

    def digests(self) -> Digests:
        """What decides each shard of the map."""
        return shard_digests(self.reader, self.modalities, self.settings, self.reach)

    def lacking(self) -> Bools:
        """True for the shards that cannot be made because the cube lacks what they are made of."""
        return lacking(self.reader, self.modalities, self.reach)

    def check_models(self) -> None:
        """Raise MdicoError where a bundle changed since the plan was made, is gone or damaged, or no card is there."""
        torch_device(self.device)
        for member in self.members:
            assert member.loaded

    def predict(self, y: slice, x: slice) -> Bytes:
        """Read one block of the cube and map it: (L, h, w) in the order of `variables`."""
        return self.compute(self.gather(y, x))

    def gather(self, y: slice, x: slice) -> Gathered:
        """Read what a block needs: nothing where the mask leaves nothing of it, else as many sensors as it takes.

        Raises:
            MdicoError: the cube or the mask cannot be read.
        """
        reader = self.reader
        shape = (y.stop - y.start, x.stop - x.start)
        wanted = np.ones(shape, np.bool_) if self.mask is None else self.mask.inside(reader.geobox, y, x)
        if not wanted.any():
            return Gathered(y, x, wanted)
        rows, columns = (
            slice(max(0, axis.start - self.reach), min(end, axis.stop + self.reach))
            for axis, end in zip((y, x), reader.shape, strict=True)
        )
        found = Gathered(y, x, wanted, (rows.start, columns.start))
        inputs: list[tuple[Input, ...]] = []
        for member in self.members:
            inputs.append(tuple(read_input(reader, name, rows, columns, self.in_counts) for name in member.sensors))
            masks = [found.own(each[0]).valid for each in inputs]
            if self.routed and (assign(masks, wanted, self.options.least, settle=False)[wanted] >= 0).all():
                break  # the sensors behind it are not needed here
        return Gathered(y, x, wanted, found.corner, tuple(inputs))

    def compute(self, found: Gathered, known: Known | None = None) -> Bytes:
        """Map what was read: (L, h, w) in the order of `variables`.

        Args:
            found: what `gather` gave.
            known: per member the windows that were computed for other blocks; None = none is kept.
        """
        known = known or [None] * len(self.members)
        shape, layers = found.wanted.shape, self.layers
        stack = np.full((stack_depth(len(self.classes), layers), *shape), NODATA, np.uint8)
        if not found.inputs:
            return stack
        if not self.routed:
            return self._member(self.members[0], found, found.inputs[0], found.wanted, known[0])
        chosen = assign([found.own(each[0]).valid for each in found.inputs], found.wanted, self.options.least)
        for number, (member, inputs, windows) in enumerate(zip(self.members, found.inputs, known, strict=False)):
            mine = chosen == number
            if mine.any():
                stack[:, mine] = self._member(member, found, inputs, mine, windows)[:, mine]
        counts = np.where(found.wanted, chosen + 1, NODATA).astype(np.uint8)
        stack[-1] = counts
        if layers.observations:
            stack[-2, counts == 0] = 0
        return stack

    def _member(
        self, member: Member, found: Gathered, inputs: tuple[Input, ...], wanted: Bools, known: Windows | None
    ) -> Bytes:
        """One bundle's stack."""
        loaded, options, layers = member.loaded, self.options, replace(self.layers, scale=member.loaded.scale)
        tiling, room = loaded.tiling(options.window), loaded.room(options, self.device)
        values = class_values(loaded.classes)
        if tiling is not None:
            model, block = loaded.image_scorer(options, self.device), (found.y, found.x)
            return predict_windows(model, inputs, found.corner, block, tiling, values, layers, wanted, room, known)
        own = [found.own(one) for one in inputs] if self.reach else inputs
        return predict_together(loaded.scorer(options, self.device), own, values, room, layers, wanted)

    def keep_windows(self) -> Known:
        """Room for the windows of every bundle that looks at neighbours, for as long as one map is made."""
        tilings = [member.loaded.tiling(self.options.window) for member in self.members]
        return [None if tiling is None else Windows(BYTES // len(tilings)) for tiling in tilings]


def plan_map(cube: Location, bundle: Path | Sequence[Path], **options: Any) -> MapPlan:
    """Check that bundles fit a cube before anything is built.

    Args:
        cube: where the cube lies.
        bundle: folder of one bundle, or of several: then each pixel takes the best that was observed there.
        options: of `mdico_cube.recipe.MapOptions`: pixels, device, precision, backend, outputs, step, mask, abstain,
            window, least.

    Raises:
        MdicoError: no such cube or bundle, bands, units or steps differ, an option that is none, or one that the bundle
            cannot serve.
    """
    cube, wanted = locate(cube), parse_section(MapOptions, options, "maps")
    folders = [bundle] if isinstance(bundle, str | Path) else list(bundle)
    reader, found = open_reader(cube), [load(Path(folder).resolve()) for folder in folders]
    for loaded in found:
        for config in loaded.configs:
            name = config.modality
            if name not in reader.modalities:
                raise MdicoError(
                    f"cube {cube}: has no {name}, which bundle {loaded.path} maps with. "
                    f"It holds: {', '.join(reader.modalities)}."
                )
            check_fit(config, reader.modalities[name], reader.steps(name))
        loaded.check(wanted)
    members = tuple(Member(loaded.path, loaded.digest, loaded.sensors) for loaded in ranked(found))
    mask = None if wanted.mask is None else area_mask(wanted.mask, reader.geobox)
    plan = MapPlan(cube, members, wanted, mask, settled(wanted.device))
    assert plan.reach >= 0  # a window that does not suit the model is refused here
    return plan


def class_values(classes: Sequence[LabelClass]) -> tuple[int, ...]:
    """The map value of each class, in the order of the logits."""
    return tuple(item.value for item in classes)


def bundle_digest(plan: MapPlan) -> str:
    """Of the one bundle, or of all of them in their order."""
    return "+".join(member.digest for member in plan.members)
