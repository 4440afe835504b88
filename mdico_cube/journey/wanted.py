"""A recipe in, which maps are made and with which bundles out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mdico_cube.colearn.registry import get_method
from mdico_cube.errors import MdicoError
from mdico_cube.journey.places import Places
from mdico_cube.maps.forms import load
from mdico_cube.maps.mapstore import map_path
from mdico_cube.progress import say
from mdico_cube.recipe import Recipe

_TITLES = {"auto": "the best sensor at each pixel", "fused": "all sensors at each pixel"}


@dataclass(frozen=True, slots=True)
class WantedMap:
    """One map that a recipe asks for."""

    out: Path
    """Folder of the run."""
    method: str
    modality: str
    """A sensor, "auto" or "fused"."""
    seed: int
    bundle: Path | list[Path]
    """Where its model stands; several where each pixel takes the best."""

    @property
    def folders(self) -> list[Path]:
        """Every bundle of it."""
        return [self.bundle] if isinstance(self.bundle, Path) else self.bundle

    @property
    def target(self) -> Path:
        """Where it is written."""
        return map_path(self.out, self.method, self.modality, self.seed)

    @property
    def title(self) -> str:
        """Method and sensor, for people."""
        return f"{self.method}, {_TITLES.get(self.modality, f'{self.modality} alone')}"


def wanted_maps(recipe: Recipe) -> Iterator[WantedMap]:
    """The maps of a recipe: with the bundles that it names, else with those that its own run trains.

    Raises:
        MdicoError: a bundle that it names is not there or damaged, or two give the same map.
    """
    return _given(recipe) if recipe.maps.bundles else _trained(recipe)


def ready_maps(recipe: Recipe) -> list[WantedMap]:
    """The same, once their bundles stand.

    Raises:
        MdicoError: a bundle is not there or damaged, or two give the same map.
    """
    found = list(wanted_maps(recipe))
    for folder in (folder for one in found for folder in one.folders):
        if not folder.exists():
            raise MdicoError(f"{folder}: there is no model. Train it with `mdico train`.")
    return found


def _trained(recipe: Recipe) -> Iterator[WantedMap]:
    if recipe.learning is None:
        raise MdicoError(
            f"recipe {recipe.name}: trains nothing (no `colearn` section) and names no bundles of another run. "
            "Map with one: `--bundle FOLDER`, or maps.bundles."
        )
    places, section = Places.of(recipe), recipe.learning
    seeds = section.seeds if recipe.maps.seeds == "all" else section.seeds[:1]
    for method in recipe.maps.methods or section.methods:
        maker = get_method(method)
        if not maker.maps_alone:
            say(f"predict: {method} cannot map with one sensor, skipped")
            continue
        for modality in recipe.maps.modalities or section.modalities:
            if modality == "fused" and not maker.any_subset:
                say(f"predict: {method} fuses no subset of the sensors, skipped")
                continue
            for seed in seeds:
                names = section.modalities if modality == "auto" else (modality,)
                folders = [places.bundle(method, seed, name) for name in names]
                yield WantedMap(recipe.output, method, modality, seed, folders if modality == "auto" else folders[0])


def _given(recipe: Recipe) -> Iterator[WantedMap]:
    asked = recipe.maps.modalities
    alone: list[Path] = []
    found: dict[Path, WantedMap] = {}
    for folder in dict.fromkeys(recipe.maps.bundles):
        configs = load(folder).configs
        modality = configs[0].modality if len(configs) == 1 else "fused"
        if modality != "fused":
            alone.append(folder)
        if asked is None or modality in asked:
            one = WantedMap(recipe.output, configs[0].method, modality, configs[0].seed, folder)
            if one.target in found:
                raise MdicoError(
                    f"maps.bundles: {found[one.target].bundle} and {folder} both give the map {one.target.stem}. "
                    "Name one of them, and give the other an output of its own."
                )
            found[one.target] = one
    if asked is not None and "auto" in asked and len(alone) > 1:
        first = load(alone[0]).configs[0]
        found[recipe.output] = WantedMap(recipe.output, first.method, "auto", first.seed, alone)
    if not found:
        raise MdicoError(
            f"maps.bundles: none maps with {', '.join(asked or ())}. Name a bundle of that sensor; "
            "auto chooses among two or more."
        )
    yield from found.values()
