"""One YAML file or mapping in, one Recipe with absolute paths out; every fault in one sentence."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from mdico_cube.errors import MdicoError
from mdico_cube.recipe.section import FORMS, Section
from mdico_cube.recipe.sources import FallbackSection
from mdico_cube.recipe.whole import Recipe

T = TypeVar("T", bound=Section)


class _OnceLoader(yaml.SafeLoader):
    """Plain YAML in which a key stands once: of two sections of one name, YAML would take the last one silently."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """A mapping, or a fault where a key stands twice."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


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
        data = _OnceLoader(text).get_single_data()
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
        raise MdicoError(f"{name}: {_sentences(error)}") from error
    return _rebased(recipe, base or Path.cwd())


def parse_section(model: type[T], options: dict[str, Any], name: str) -> T:
    """One section of a recipe from keywords.

    Args:
        model: the section.
        options: its keys.
        name: where it stands in a recipe: "samples".

    Raises:
        MdicoError: an unknown key or a value outside its rule; the text names each one.
    """
    try:
        return model.model_validate(options)
    except ValidationError as error:
        raise MdicoError(_sentences(error, name)) from error


def _sentences(error: ValidationError, *above: str) -> str:
    """Every fault, but that a list is too short where it is so for a fault in one of its values."""
    faults = error.errors()
    inside = {fault["loc"][:-1] for fault in faults}
    told = [fault for fault in faults if fault["type"] != "too_short" or fault["loc"] not in inside]
    text = "; ".join(_sentence({**fault, "loc": (*above, *fault["loc"])}) for fault in told)
    return text if text.endswith("?") else f"{text}."


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
    if fault["type"] == "too_short":
        message = f"must hold at least {fault['ctx']['min_length']}"
    if fault["type"] == "string_pattern_mismatch":
        message = FORMS.get(fault["ctx"]["pattern"], message)
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
    update: dict[str, Any] = {"output": under(recipe.output), "href": address(recipe.href), "area": area}
    if recipe.labelling is not None:
        update["labelling"] = recipe.labelling.model_copy(update={"path": under(recipe.labelling.path)})
    if recipe.samples.places is not None:
        places = recipe.samples.places.model_copy(update={"path": under(recipe.samples.places.path)})
        update["samples"] = recipe.samples.model_copy(update={"places": places})
    if recipe.learning is not None and recipe.learning.encoder.weights is not None:
        encoder = recipe.learning.encoder.model_copy(update={"weights": under(recipe.learning.encoder.weights)})
        update["learning"] = recipe.learning.model_copy(update={"encoder": encoder})
    bundles, mask = tuple(under(folder) for folder in recipe.maps.bundles), recipe.maps.mask
    update["maps"] = recipe.maps.model_copy(update={"bundles": bundles, "mask": mask and under(mask)})
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
