"""A recipe's query in; the same in an API's own language, and whether an item is meant, out."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import pystac
from pystac_client import Client
from pystac_client.conformance import ConformanceClasses

_WORDS: dict[str, Callable[[Any, Any], bool]] = {
    **{"eq": operator.eq, "neq": operator.ne, "lt": operator.lt, "lte": operator.le},
    **{"gt": operator.gt, "gte": operator.ge, "in": lambda came, wanted: came in wanted},
}
_CQL2 = {"eq": "=", "neq": "<>", "lt": "<", "lte": "<=", "gt": ">", "gte": ">=", "in": "in"}


def asked_of(client: Client, query: Mapping[str, Any]) -> dict[str, Any]:
    """What a search by an API says of the query: CQL2, the query extension, or nothing where it knows neither.

    An API may ignore it silently, so `matches` looks at every item in any case.
    """
    asked = comparisons(query)
    if not asked:
        return {}
    if client.conforms_to(ConformanceClasses.FILTER):
        terms = [{"op": _CQL2[word], "args": [{"property": key}, value]} for key, word, value in asked]
        return {"filter": {"op": "and", "args": terms} if len(terms) > 1 else terms[0], "filter_lang": "cql2-json"}
    if client.conforms_to(ConformanceClasses.QUERY):
        words: dict[str, dict[str, Any]] = {}
        for key, word, value in asked:
            words.setdefault(key, {})[word] = value
        return {"query": words}
    return {}


def matches(item: pystac.Item, query: Mapping[str, Any]) -> bool:
    """True where an item's properties are as a query wants them; a property that is not there never is."""
    return all(
        key in item.properties and _compares(item.properties[key], word, wanted)
        for key, word, wanted in comparisons(query)
    )


def comparisons(query: Mapping[str, Any]) -> list[tuple[str, str, Any]]:
    """(property, word, value) of every comparison of a query: {"a": 1} is eq, {"a": {"lt": 1}} is lt."""
    return [
        (key, word, wanted)
        for key, value in query.items()
        for word, wanted in (value.items() if isinstance(value, dict) else [("eq", value)])
    ]


def _compares(came: Any, word: str, wanted: Any) -> bool:
    try:
        return bool(_WORDS[word](came, wanted))
    except TypeError:  # a text against a number
        return False
