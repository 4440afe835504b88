"""The recipe's JSON schema in, docs/recipe.md out: one table per section. Run it after a change to the recipe."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mdico_cube.recipe import Recipe

PAGE = Path(__file__).with_name("recipe.md")
HEAD = """# Recipe

Every key of a recipe, made from its JSON schema. `mdico schema` prints that schema, for editors that complete and check
YAML.

- Unknown keys are refused, with the closest known key.
- Relative paths count from the recipe's folder.
- A section or key with a default can be left out.
- `pipelines/templates/region.yml` is a recipe to start from, with a comment per key.
"""
Node = dict[str, Any]
_SIGNS = {
    "minimum": "≥",
    "exclusiveMinimum": ">",
    "maximum": "≤",
    "exclusiveMaximum": "<",
    "multipleOf": "multiple of",
}


def page() -> str:
    """The whole page."""
    schema = Recipe.model_json_schema()
    return "\n".join([HEAD, *sections("", schema, schema["$defs"])])


def sections(path: str, node: Node, defs: dict[str, Node]) -> Iterator[str]:
    """A section's table, then those of the sections inside it."""
    yield f"## {path or 'The whole file'}\n"
    if path and node.get("description"):
        yield f"{text(node['description'])}\n"
    yield "| key | type | default | meaning |\n|---|---|---|---|"
    inner = []
    for key, field in node["properties"].items():
        found, many = section_of(field, defs)
        many = ".BAND" if key == "variables" else many
        where = f"{path}.{key}" if path else key
        if found is not None:
            inner.append((f"{where}{many}", found))
            each = f" per {many[1:].lower()}" if many.startswith(".") else ", list of" if many else ""
            kind = f"section{each}{' or null' if 'anyOf' in field else ''}"
        else:
            kind = type_of(field)
        needed = "default" not in field
        default = (
            "**required**"
            if needed
            else "see below"
            if found is not None and field.get("default", 0) is not None
            else value_of(field["default"])
        )
        about = field.get("description") or (found or {}).get("description", "")
        yield f"| `{key}` | {kind} | {default} | {text(about)} |"
    yield ""
    for where, found in inner:
        yield from sections(where, found, defs)


def value_of(default: Any) -> str:
    """A default as the recipe writes it: a mapping one key a line, without what is false."""
    if not isinstance(default, dict) or not default:
        return f"`{json.dumps(default)}`"
    kept = {
        key: {name: part for name, part in value.items() if part is not False} if isinstance(value, dict) else value
        for key, value in default.items()
    }
    return "<br>".join(f"`{key}: {json.dumps(value)}`" for key, value in kept.items())


def section_of(field: Node, defs: dict[str, Node]) -> tuple[Node | None, str]:
    """The section a key holds, and what stands behind its path: "", ".SENSOR" for a mapping, "[]" for a list."""
    options = [option for option in field.get("anyOf", []) if option.get("type") != "null"]
    if len(options) == 1 and "$ref" in options[0]:  # a section or null
        return section_of(options[0], defs)
    for node, many in ((field, ""), (field.get("additionalProperties"), ".SENSOR"), (field.get("items"), "[]")):
        if isinstance(node, dict) and "$ref" in node:
            return defs[node["$ref"].rsplit("/", 1)[1]], many
    return None, ""


def type_of(field: Node) -> str:
    """What may stand there, as a person would write it."""
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(type_of(option) for option in field["anyOf"]))
    if "enum" in field or "const" in field:
        return " or ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if field.get("type") == "array":
        if "prefixItems" in field:
            return f"{len(field['prefixItems'])} {type_of(field['prefixItems'][0])}s"
        return f"list of {type_of(field['items'])}"
    if field.get("type") == "object":
        return "mapping"
    names = {"string": "path" if field.get("format") == "path" else "text", "boolean": "true or false", "null": "null"}
    return names.get(field.get("type", ""), field.get("type", "anything")) + bounds(field)


def bounds(field: Node) -> str:
    """The limits of a number."""
    return "".join(f" {sign} {field[name]:g}" for name, sign in _SIGNS.items() if name in field)


def text(about: str) -> str:
    """One line that a table can hold."""
    return " ".join(about.split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
