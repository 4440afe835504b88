"""A catalog's YAML file in, frozen facts out: where it is, how it signs, and where each modality stands in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError

from mdico_cube.cube.access import Access, S3Section, Signing
from mdico_cube.cube.tokens import TokenSection
from mdico_cube.errors import MdicoError, did_you_mean
from mdico_cube.recipe import ORBIT, Recipe, Section, Source
from mdico_cube.sensors.registry import SENSORS, WEATHER
from mdico_cube.sensors.sensor import Sensor
from mdico_cube.sensors.weather import Weather


class CatalogFile(Section):
    """One file of catalogs/."""

    name: str
    title: str
    href: str | None = None
    """STAC API landing page or catalog.json; null where the recipe says it."""
    kind: Literal["auto", "static", "api"] = "auto"
    """How it is searched; auto looks at the landing page."""
    signing: Signing = "none"
    """Who signs asset addresses when they are read."""
    token: TokenSection | None = None
    """A secret that some hosts want to see with every request."""
    s3: S3Section = S3Section()
    """How s3:// addresses are read."""
    modalities: dict[str, Source]
    """Modality -> where it stands in this catalog."""
    also: dict[str, tuple[Source, ...]] = Field(default_factory=dict)
    """Modality -> other collections of this catalog that it can be read from: a recipe names one by
    `source.collection`."""

    @property
    def access(self) -> Access:
        """How this catalog's files are reached."""
        return Access(self.signing, self.token, self.s3)


@dataclass(frozen=True, slots=True)
class Fallback:
    """Another catalog that may hold the same acquisitions of one modality."""

    catalog: CatalogFile
    href: str
    """Where it is."""
    source: Source
    """Where the modality stands in it."""


def catalog_folder() -> Path:
    """The folder of the catalogs that come with the project."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "catalogs"
    return packaged if packaged.is_dir() else package.parent / "catalogs"


def load_catalog(name: str) -> CatalogFile:
    """A catalog by name ("local") or by the path of a YAML file.

    Raises:
        MdicoError: no such catalog, or the file breaks a rule.
    """
    path = Path(name) if name.endswith((".yml", ".yaml")) else catalog_folder() / f"{name}.yml"
    if not path.is_file():
        known = sorted(file.stem for file in catalog_folder().glob("*.yml"))
        raise MdicoError(
            f"catalog {name!r}: no such file ({path.name}). Use one of {', '.join(known)}, or a path."
            f"{did_you_mean(name, known)}"
        )
    try:
        catalog = CatalogFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise MdicoError(f"catalog file {path}: is not YAML ({error}).") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise MdicoError(f"catalog file {path}: {where}: {first['msg']}.") from error
    _check_names(catalog, path)
    return catalog


def _check_names(catalog: CatalogFile, path: Path) -> None:
    """Raise MdicoError where the file speaks of a sensor or a band that there is none of."""
    entries = [("modalities", name, source) for name, source in catalog.modalities.items()]
    entries += [("also", name, source) for name, sources in catalog.also.items() for source in sources]
    for section, name, source in entries:
        if name not in SENSORS and name not in WEATHER:
            known = (*SENSORS, *WEATHER)
            raise MdicoError(
                f"catalog file {path}: {section}.{name} is no sensor: known are {', '.join(known)}."
                f"{did_you_mean(name, known)}"
            )
        bands = SENSORS[name].modality.band_names if name in SENSORS else tuple(source.assets)
        for band in source.assets:
            if band not in bands:
                raise MdicoError(
                    f"catalog file {path}: {section}.{name}.assets: {name} has no band {band!r}, it has "
                    f"{', '.join(bands)}.{did_you_mean(band, bands)}"
                )


def source_for(catalog: CatalogFile, recipe: Recipe, modality: str, sensor: Sensor | Weather) -> Source:
    """The catalog's description of a modality with the recipe's changes on top.

    A collection that the recipe names is described by the catalog's `also` where it stands there.

    Raises:
        MdicoError: the catalog does not have the modality and the recipe names no collection.
    """
    section = recipe.modalities[modality]
    entry = sensor.entry or modality
    said = section.source.model_dump(exclude_unset=True)
    changes = {key: value for key, value in said.items() if value is not None or _may_be_null(key)}
    others = {source.collection: source for source in catalog.also.get(entry, ())}
    base = others.get(changes.get("collection", ""), catalog.modalities.get(entry))
    if base is None and "collection" not in changes:
        raise MdicoError(
            f"catalog {catalog.name!r} has no {entry}: it has {', '.join(catalog.modalities)}. "
            f"Leave it out or set modalities.{modality}.source.collection."
        )
    source = Source.model_validate({**(base.model_dump() if base else {}), **changes})
    direction = {} if section.orbit in ("both", "split") else {ORBIT: section.orbit}
    return source.model_copy(update={"query": {**source.query, **sensor.query, **direction}})


def _may_be_null(key: str) -> bool:
    return Source.model_fields[key].default is None
