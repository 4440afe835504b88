"""A catalog's YAML file in, frozen facts out: where it is, how it signs, and where each modality stands in it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import ValidationError

from mdico_cube.errors import MdicoError
from mdico_cube.recipe import Recipe, Section, Source


class CatalogFile(Section):
    """One file of catalogs/."""

    name: str
    title: str
    href: str | None = None
    """STAC API landing page or catalog.json; null where the recipe says it."""
    kind: Literal["auto", "static", "api"] = "auto"
    """How it is searched; auto looks at the landing page."""
    signing: Literal["none", "planetary-computer"] = "none"
    """Who signs asset addresses when they are read."""
    modalities: dict[str, Source]
    """Modality -> where it stands in this catalog."""


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
        raise MdicoError(f"catalog {name!r}: no such file ({path.name}). Use one of {', '.join(known)}, or a path.")
    try:
        return CatalogFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise MdicoError(f"catalog file {path}: is not YAML ({error}).") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise MdicoError(f"catalog file {path}: {where}: {first['msg']}.") from error


def source_for(catalog: CatalogFile, recipe: Recipe, modality: str) -> Source:
    """The catalog's description of a modality with the recipe's changes on top.

    Raises:
        MdicoError: the catalog does not have the modality and the recipe names no collection.
    """
    base = catalog.modalities.get(modality)
    said = recipe.modalities[modality].source.model_dump(exclude_unset=True)
    changes = {key: value for key, value in said.items() if value is not None or _may_be_null(key)}
    if base is None:
        if "collection" not in changes:
            raise MdicoError(
                f"catalog {catalog.name!r} has no {modality}: it has {', '.join(catalog.modalities)}. "
                f"Leave it out or set modalities.{modality}.source.collection."
            )
        return Source.model_validate(changes)
    return base.model_copy(update=changes)


def _may_be_null(key: str) -> bool:
    return Source.model_fields[key].default is None
