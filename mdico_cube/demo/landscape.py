"""A seed and a size in, a landscape out: relief, parcels and their true class on cells of 5 m."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mdico_cube.demo.fields import Ids, Warped, borders, cut_fields, voronoi, warped, whole_pieces
from mdico_cube.demo.noise import generator, smooth_field
from mdico_cube.spec import Array, Bools, Floats, LabelClass

CELL = 5.0
"""Side of a landscape cell in metres."""
CRS = "EPSG:32631"
CENTRE = (711_960.0, 5_620_020.0)
"""Easting and northing of a region's middle: on 6 degrees east, the border of the UTM zones 31 and 32."""

CLASSES = (
    LabelClass("winter wheat", 1, "#e8c24a"),
    LabelClass("maize", 2, "#f08a24"),
    LabelClass("rapeseed", 3, "#f5f03c"),
    LabelClass("sugar beet", 4, "#b5478f"),
    LabelClass("grassland", 5, "#8fd16a"),
    LabelClass("forest", 6, "#1f6b35"),
    LabelClass("built-up", 7, "#c0392b"),
    LabelClass("water", 8, "#2f7fc1"),
)
WHEAT, MAIZE, RAPESEED, BEET, GRASS, FOREST, BUILT, WATER = range(8)
ARABLE = {WHEAT: 0.37, MAIZE: 0.26, RAPESEED: 0.17, BEET: 0.20}
"""Share of the arable land under each crop."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Where the cells lie: the region with a margin on every side, in EPSG:32631."""

    size: int
    """Region side in pixels of 10 m."""
    margin: int
    """Margin on every side in pixels of 10 m."""

    @property
    def left(self) -> float:
        """Easting of the region's left edge, a multiple of 60 m so that 10, 20 and 30 m grids fit."""
        return round((CENTRE[0] - 5 * self.size) / 60) * 60.0

    @property
    def top(self) -> float:
        """Northing of the region's upper edge, a multiple of 60 m."""
        return round((CENTRE[1] + 5 * self.size) / 60) * 60.0

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right, top of the region."""
        return self.left, self.top - 10.0 * self.size, self.left + 10.0 * self.size, self.top

    @property
    def cells(self) -> int:
        """Cells along one side of the frame."""
        return 2 * (self.size + 2 * self.margin)

    def fractional(self, easting: Array, northing: Array) -> tuple[Array, Array]:
        """Position as fractional (row, column) of the cell raster; whole numbers are upper-left cell corners."""
        outer_left, outer_top = self.left - 10 * self.margin, self.top + 10 * self.margin
        return (outer_top - northing) / CELL, (easting - outer_left) / CELL

    @property
    def inner(self) -> tuple[slice, slice]:
        """The region's cells within the frame."""
        inside = slice(2 * self.margin, 2 * (self.margin + self.size))
        return inside, inside


@dataclass(frozen=True, slots=True)
class Landscape:
    """The truth behind every sensor, H x W cells and P parcels."""

    frame: Frame
    elevation: Floats
    """(H, W) metres."""
    parcel: Ids
    """(H, W) parcel id 0..P-1."""
    kind: npt.NDArray[np.uint8]
    """(P,) class index 0..7 into CLASSES."""
    labelled: Bools
    """(P,) False for verges: they are in the truth, but nobody declares them as a parcel."""
    vigour: Floats
    """(H, W) how much better plants stand than their parcel's mean, in standard deviations."""
    soil: Floats
    """(H, W) soil brightness and wetness against the parcel's mean, in standard deviations."""

    @property
    def parcels(self) -> int:
        """Number of parcels."""
        return self.kind.size

    def gradient(self) -> tuple[Floats, Floats]:
        """(H, W) rise towards the south and towards the east, metres per metre."""
        south, east = np.gradient(self.elevation, CELL, axis=(0, 1))
        return np.asarray(south), np.asarray(east)

    def truth(self) -> npt.NDArray[np.uint8]:
        """(size, size) class value 1..8 that covers most of each 10 m pixel of the region; verges lose ties."""
        inner = self.frame.inner
        parcel = self.parcel[inner]
        kind, weight = self.kind[parcel], np.where(self.labelled[parcel], 1.0, 0.9).astype(np.float32)
        half = self.frame.size
        votes = [
            np.where(kind == index, weight, 0).reshape(half, 2, half, 2).sum(axis=(1, 3))
            for index in range(len(CLASSES))
        ]
        return np.asarray(np.argmax(np.stack(votes), axis=0) + 1, dtype=np.uint8)


def build_landscape(seed: int, size: int) -> Landscape:
    """Draw the landscape of one seed.

    Args:
        seed: same seed, same landscape.
        size: region side in pixels of 10 m; small regions get smaller fields so that every class still occurs.
    """
    frame = Frame(size, margin=6 * max(8, round(0.1 * size / 6)))
    shape, scale = (frame.cells, frame.cells), float(np.clip(size / 384, 0.35, 1.0))
    where = warped(generator(seed, "bends"), shape, CELL, scale)
    water, valley = _water(generator(seed, "water"), where, scale)
    elevation = _relief(generator(seed, "relief"), shape, valley, scale)
    slope = np.hypot(*np.gradient(elevation, CELL))
    forest = _forest(generator(seed, "forest"), slope, scale)
    village = _villages(generator(seed, "villages"), where, water, scale)
    rng = generator(seed, "parcels")
    blocks = voronoi(rng, where, 620 * scale)
    fields = cut_fields(rng, where, blocks, CELL, 3.0 * scale)
    cover = np.select([water, village, forest], [WATER, BUILT, FOREST], default=-1).astype(np.int32)
    parts = {
        -1: fields,
        FOREST: voronoi(rng, where, 330 * scale),
        BUILT: voronoi(rng, where, 55),
        WATER: voronoi(rng, where, 420 * scale),  # reaches of the river, bays of a lake
    }
    ids = np.zeros(shape, dtype=np.int32)
    for number, (kind, part) in enumerate(parts.items()):
        ids = np.where(cover == kind, part * len(parts) + number, ids)
    parcel = whole_pieces(ids, smallest=24)
    kinds = _kinds(generator(seed, "crops"), parcel, cover, blocks, slope, valley)
    parcel, kinds, labelled = _verges(generator(seed, "verges"), parcel, kinds, blocks)
    textures = [_texture(generator(seed, "texture", i), shape) for i in range(2)]
    return Landscape(frame, elevation, parcel, kinds, labelled, *textures)


def _water(rng: np.random.Generator, where: Warped, scale: float) -> tuple[Bools, Floats]:
    """A river across the frame with lakes beside it: (water mask, 0..1 how deep in the valley)."""
    width, height = float(where.x.max()), float(where.y.max())
    t = where.x / width
    phase, swing = rng.uniform(0, 2 * np.pi, 3), np.array([0.13, 0.06, 0.02]) * height
    middle = height * rng.uniform(0.38, 0.62) + height * rng.uniform(-0.25, 0.25) * (t - 0.5)
    for amplitude, turns, start in zip(swing, (0.9, 2.3, 6.1), phase, strict=True):
        middle = middle + amplitude * np.sin(2 * np.pi * turns * t + start)
    away = np.abs(where.y - middle)
    water, shore = away < 17 * max(scale, 0.7), 1 + 0.16 * smooth_field(rng, away.shape, 24 * scale)
    for share in rng.permutation([0.3, 0.68])[: 1 + (scale >= 1)]:
        radius, side = rng.uniform(190, 260) * scale, rng.choice([-1.0, 1.0])
        x0 = share * width
        y0 = float(np.interp(x0, where.x[0], middle[0])) + side * 0.9 * radius
        stretch = rng.uniform(1.0, 1.7)
        water |= np.hypot((where.x - x0) / stretch, (where.y - y0) * stretch) < radius * shore
    return water, np.exp(-((away / (420 * scale)) ** 2)).astype(np.float32)


def _relief(rng: np.random.Generator, shape: tuple[int, int], valley: Floats, scale: float) -> Floats:
    hills = 30 * scale * smooth_field(rng, shape, 150 * scale, power=4)
    knolls = 4.5 * scale * smooth_field(rng, shape, 42 * scale, power=4)
    return np.asarray(185 + hills + knolls - 32 * scale * valley, dtype=np.float32)


def _forest(rng: np.random.Generator, slope: Floats, scale: float) -> Bools:
    """Woods with ragged edges, rather on slopes; about a sixth of the land before water and villages."""
    score = smooth_field(rng, slope.shape, 55 * scale, power=2.6) + 0.5 * (slope / slope.mean() - 1)
    score += 0.08 * smooth_field(rng, slope.shape, 8)
    return np.asarray(score > np.quantile(score, 0.84))


def _villages(rng: np.random.Generator, where: Warped, water: Bools, scale: float) -> Bools:
    """A few villages and single farms on dry land."""
    width, height = float(where.x.max()), float(where.y.max())
    villages, farms = max(2, round(width * height / 6.5e6)), max(2, round(width * height / 1.6e6))
    radii = np.concatenate([rng.uniform(210, 330, villages) * scale, rng.uniform(28, 55, farms)])
    margin = np.where(np.arange(radii.size) < villages, 0.2, 0.08)
    x0, y0 = (margin + rng.uniform(size=radii.size) * (1 - 2 * margin) for _ in range(2))
    built = np.zeros(water.shape, dtype=bool)
    fringe = 1 + 0.22 * smooth_field(rng, water.shape, 16)
    for x, y, radius in zip(x0 * width, y0 * height, radii, strict=True):
        built |= np.hypot(where.x - x, where.y - y) < radius * fringe
    return np.asarray(built & ~water)


def _kinds(
    rng: np.random.Generator, parcel: Ids, cover: Ids, blocks: Ids, slope: Floats, valley: Floats
) -> npt.NDArray[np.uint8]:
    """(P,) class of each parcel: grass on steep and wet land, crops by their shares of the arable land."""
    area = np.bincount(parcel.ravel()).astype(float)

    def mean(values: Array) -> Array:
        return np.asarray(np.bincount(parcel.ravel(), weights=values.ravel()) / area)

    kinds = np.zeros(area.size, dtype=np.int64)
    kinds[parcel.ravel()] = cover.ravel()
    fields = np.flatnonzero(kinds < 0)
    farm = rng.standard_normal(int(blocks.max()) + 1)[blocks]
    wish = mean(slope) / slope.mean() + 1.5 * mean(valley) + 0.5 * mean(farm) + rng.standard_normal(area.size)
    fields = fields[np.argsort(-wish[fields], kind="stable")]
    grass = np.cumsum(area[fields]) < 0.27 * area[fields].sum()
    kinds[fields[grass]] = GRASS
    arable = fields[~grass]
    turn = mean(farm) + 1.2 * rng.standard_normal(area.size)
    arable = arable[np.argsort(turn[arable], kind="stable")]
    share = (np.cumsum(area[arable]) - area[arable] / 2) / area[arable].sum()
    crops = rng.permutation(np.array(list(ARABLE)))
    edges = np.cumsum([ARABLE[int(crop)] for crop in crops])[:-1]
    kinds[arable] = crops[np.searchsorted(edges, share)]
    return kinds.astype(np.uint8)


def _verges(
    rng: np.random.Generator, parcel: Ids, kinds: npt.NDArray[np.uint8], blocks: Ids
) -> tuple[Ids, npt.NDArray[np.uint8], Bools]:
    """Grass verges one cell wide between most blocks of fields."""
    kept = rng.random(int(blocks.max()) + 1) < 0.75
    verge = borders(blocks) & kept[blocks] & (kinds[parcel] <= GRASS)
    if not verge.any():
        return parcel, kinds, np.ones(kinds.size, dtype=bool)
    owner, strip = np.unique(blocks[verge], return_inverse=True)
    parcel = parcel.copy()
    parcel[verge] = kinds.size + strip
    labelled = np.arange(kinds.size + owner.size) < kinds.size
    return parcel, np.concatenate([kinds, np.full(owner.size, GRASS, dtype=np.uint8)]), labelled


def _texture(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    patches = smooth_field(rng, shape, 14) + 0.5 * smooth_field(rng, shape, 3)
    return np.asarray(patches / 1.12, dtype=np.float32)
