"""Facts about a thing in, a small HTML card for notebooks out; every text is escaped, for it may come from a file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment, StrictUndefined

_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_PICTURE = re.compile(r"data:image/png;base64,[A-Za-z0-9+/=]+")


def _color(text: object) -> str:
    return str(text) if _COLOR.fullmatch(str(text)) else "#888888"


def _picture(text: object) -> str:
    return str(text) if _PICTURE.fullmatch(str(text)) else ""


_PAGES = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
_PAGES.filters.update(color=_color, picture=_picture)
_CARD = _PAGES.from_string(
    """\
<div class="mdico-card" style="font-size:13px;line-height:1.4;max-width:60em">
<div style="font-weight:600;font-size:15px">{{ card.title }}
<span style="font-weight:400;opacity:.65">{{ card.kind }}</span></div>
{% if card.facts %}
<table style="margin:.3em 0;border-collapse:collapse">
{% for name, value in card.facts %}
<tr style="background:none">
<td style="text-align:left;opacity:.65;padding:1px 1em 1px 0;vertical-align:top">{{ name }}</td>
<td style="text-align:left;padding:1px 0">{{ value }}</td></tr>
{% endfor %}
</table>
{% endif %}
{% for table in card.tables %}
<table style="margin:.4em 0;border-collapse:collapse">
<tr style="background:none;border-bottom:1px solid currentColor">
{% for name in table.head %}<th style="text-align:left;padding:2px 1em 2px 0">{{ name }}</th>{% endfor %}
</tr>
{% for row in table.rows %}
<tr style="background:none">
{% for cell in row %}<td style="text-align:left;padding:2px 1em 2px 0;vertical-align:top">{{ cell }}</td>{% endfor %}
</tr>
{% endfor %}
</table>
{% endfor %}
{% if card.legend %}
<div style="margin:.3em 0">
{% for name, color in card.legend %}
<span style="display:inline-block;margin-right:1em"><span style="display:inline-block;width:.8em;height:.8em;\
border:1px solid #0004;background:{{ color|color }}"></span> {{ name }}</span>
{% endfor %}
</div>
{% endif %}
{% if card.pictures %}
<div style="display:flex;flex-wrap:wrap;gap:8px;margin:.3em 0">
{% for title, source in card.pictures %}
<figure style="margin:0;max-width:230px">
<img src="{{ source|picture }}" alt="{{ title }}" style="height:150px;image-rendering:pixelated">
<figcaption style="font-size:11px;opacity:.65">{{ title }}</figcaption></figure>
{% endfor %}
</div>
{% endif %}
{% if card.calendar %}
<table style="margin:.3em 0;border-collapse:separate;border-spacing:2px">
<tr style="background:none"><th></th>
{% for step in card.steps %}
<th style="font-weight:400;font-size:10px;opacity:.65;padding:0 2px">{{ step }}</th>
{% endfor %}
</tr>
{% for name, shares in card.calendar %}
<tr style="background:none"><td style="text-align:left;padding:0 .6em 0 0">{{ name }}</td>
{% for share in shares %}
{% if share is none %}<td></td>{% else %}
<td title="{{ '%.0f' % (100 * share) }} % observed" style="min-width:2.2em;text-align:center;font-size:10px;\
background:rgba(0,114,178,{{ '%.2f' % (0.08 + 0.6 * share) }})">{{ '%.0f' % (100 * share) }}</td>{% endif %}
{% endfor %}
</tr>
{% endfor %}
</table>
{% endif %}
{% if card.note %}<div style="opacity:.65">{{ card.note }}</div>{% endif %}
</div>"""
)


@dataclass(frozen=True)
class Table:
    """Rows under a head."""

    head: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True)
class Card:
    """What a notebook shows of a cube, a recipe or a bundle."""

    title: str
    kind: str
    """What the thing is, in a word or two."""
    facts: Sequence[tuple[str, object]] = ()
    tables: Sequence[Table] = ()
    legend: Sequence[tuple[str, str]] = ()
    """Class names with "#rrggbb"; any other text for a colour is shown as grey."""
    pictures: Sequence[tuple[str, str]] = ()
    """Titles with PNG pictures as data addresses."""
    steps: Sequence[str] = ()
    """Head of the calendar."""
    calendar: Sequence[tuple[str, Sequence[float | None]]] = ()
    """Sensor with the share (0..1) observed in each of `steps`, None where it has no such step."""
    note: str = ""

    def html(self) -> str:
        """The card, complete in itself: no script, no style of the page is touched, nothing is loaded."""
        return _CARD.render(card=self)
