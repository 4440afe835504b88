"""A run's folder and its recipe in, one self-contained report.html out: what was done, what came out, who gained."""

from __future__ import annotations

import os
import platform
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from odc.geo.crs import CRS
from pyproj import Transformer

from mdico_cube import __version__
from mdico_cube.cube.reader import CubeReader, open_reader
from mdico_cube.cube.target import cube_of
from mdico_cube.errors import MdicoError
from mdico_cube.maps.evaluate import AnyScores, read_scores
from mdico_cube.maps.gallery import Gallery, Picture
from mdico_cube.maps.scores import Gain, Scores, Summary, signed
from mdico_cube.maps.sources import source_rows
from mdico_cube.maps.style import method_name
from mdico_cube.maps.task_gallery import TaskGallery
from mdico_cube.maps.task_scores import FigureGain, FigureSummary, TaskScores
from mdico_cube.recipe import Recipe

_PACKAGES = ("numpy", "xarray", "dask", "zarr", "odc-stac", "rasterio", "torch", "lightning", "scikit-learn")
_FOLDERS = ("cube.zarr", "samples.zarr", "models", "bundles", "maps")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What co-learning did for one sensor."""

    kind: str
    """"gain", "loss" or, where the difference is nil or smaller than its spread over seeds, "even"."""
    sentence: str


def write_report(
    out: Path,
    recipe: Recipe,
    timings: Mapping[str, float] | None = None,
    overwrite: bool = False,
    made_from: str = "",
) -> Path:
    """Write `<out>/report.html`: text, tables and pictures in one file that needs no network.

    Args:
        out: folder of the run, with cube.zarr, samples.zarr, models/, maps/ and scores.json.
        recipe: what was run.
        timings: seconds per stage, where they were taken.
        overwrite: replace a report that is there.
        made_from: digest of what decides the report, to be kept in it.

    Raises:
        MdicoError: scores are missing, the report exists or cannot be written.
    """
    out = Path(out)
    target = out / "report.html"
    if target.exists() and not overwrite:
        raise MdicoError(f"report {target}: exists already. Use --overwrite to replace it.")
    scores, reader = read_scores(out), open_reader(cube_of(out))
    gallery = Gallery(out, reader, scores) if isinstance(scores, Scores) else TaskGallery(out, reader, scores)
    html = _template().render(
        title=recipe.name,
        lead=_lead(recipe, reader),
        facts=_facts(recipe, reader, scores),
        verdicts=[verdict(gain) for gain in scores.gains],
        absent=scores.absent,
        paper=any(item.protocol == "paper" for item in scores.maps),
        columns=_columns(scores),
        rows=_rows(scores) if isinstance(scores, Scores) else _task_rows(scores),
        about=_ABOUT[scores.task],
        sections=gallery.sections(),
        sources=source_rows(cube_of(out), reader),
        provenance=_provenance(out, timings or {}),
        version=__version__,
        made_from=made_from,
    )
    part = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        part.write_text(html, encoding="utf-8")
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise MdicoError(f"report {target}: cannot be written ({error.strerror}). Free some space there.") from error
    return target


def verdict(gain: Gain | FigureGain) -> Verdict:
    """Say plainly whether a method gained or lost against the independent baseline for one sensor.

    A single seed is called neither: its spread is not known.
    """
    figure, by = ("macro F1", gain.f1_macro) if isinstance(gain, Gain) else (gain.figure, gain.change)
    mean, sd, seeds = by.mean, by.sd, by.seeds
    nil, unclear = abs(mean) < 0.0005, sd is not None and abs(mean) < sd
    kind = "even" if nil or unclear or sd is None else "gain" if mean > 0 else "loss"
    change = f"{'gained' if mean > 0 else 'lost'} {abs(mean):.3f} in {figure}"
    change = "neither gained nor lost" if nil else change
    text = f"With {gain.sensor} alone, {method_name(gain.method)} {change} against independent training"
    if sd is None:
        return Verdict(kind, f"{text}. One seed only, so its spread is unknown.")
    text += f" (mean of {seeds} seeds, standard deviation {sd:.3f}; better in {gain.wins} of {seeds})."
    if unclear and not nil:
        text += " The difference is smaller than its spread over seeds."
    return Verdict(kind, text)


def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["source"] = _source
    return environment.get_template("report.html.j2")


def _source(picture: Picture) -> str:
    return "data:image/png;base64," + b64encode(picture.png).decode()


def _lead(recipe: Recipe, reader: CubeReader) -> str:
    sensors = " and ".join(_sensor(reader, name) for name in recipe.colearn.modalities)
    methods = " and ".join(method_name(name) for name in recipe.colearn.methods)
    return (
        f"Trained with {sensors} together, then mapped with each of them alone. "
        f"Methods compared: {methods}. {_SEEN[recipe.colearn.protocol]}"
    )


def _sensor(reader: CubeReader, name: str) -> str:
    return (reader.modalities[name].title if name in reader.modalities else "") or name


def _facts(recipe: Recipe, reader: CubeReader, scores: AnyScores) -> list[tuple[str, str]]:
    """What was done, as (name, value)."""
    found = reader.modalities.items()
    seeds = sorted({item.seed for item in scores.maps})
    first = scores.maps[0]
    return [
        ("Area", f"{_grid(reader)}; {_bounds(reader)}"),
        ("Period", f"{recipe.period.start} to {recipe.period.end}, {len(recipe.period.period.steps())} steps"),
        (
            "Sensors",
            "; ".join(f"{item.title or name}: {', '.join(item.band_names)}" for name, item in found),
        ),
        (
            {"classes": "Classes", "multilabel": "Labels"}.get(scores.task, "Value"),
            ", ".join(item.name for item in scores.classes),
        ),
        ("Held out", f"{first.pixels:,} labelled pixels in {recipe.samples.block}-pixel blocks"),
        ("Seeds", ", ".join(map(str, seeds))),
        ("Protocol", _protocol(recipe.colearn.protocol)),
    ]


def _bounds(reader: CubeReader) -> str:
    to_degrees = Transformer.from_crs(_crs(reader).to_wkt(), "EPSG:4326", always_xy=True)
    west, south, east, north = to_degrees.transform_bounds(*reader.geobox.boundingbox.bbox)
    return f"longitude {west:.3f} to {east:.3f}, latitude {south:.3f} to {north:.3f}"


def _crs(reader: CubeReader) -> CRS:
    crs = reader.geobox.crs
    assert crs is not None  # every cube has one
    return crs


def _grid(reader: CubeReader) -> str:
    """For example "512 x 512 pixels of 10 m in EPSG:32631"."""
    (height, width), crs = reader.shape, _crs(reader)
    unit = "degree" if crs.geographic else "m"
    step = abs(reader.geobox.resolution.x)
    return f"{width} x {height} pixels of {step:g} {unit} in {f'EPSG:{crs.epsg}' if crs.epsg else crs}"


_SEEN = {
    "honest": "Scores come from blocks that training has never seen.",
    "paper": "Scores come from held-out blocks that early stopping has looked at.",
}


def _protocol(name: str) -> str:
    return {
        "honest": "honest: what is chosen is chosen on an inner validation split, never on the scored blocks",
        "paper": "paper: early stopping looks at the scored blocks, so the scores are optimistic",
    }[name]


_ABOUT = {
    "classes": "A pixel without a prediction counts as an error.",
    "multilabel": "Labels of a pixel without a prediction count as absent.",
    "regression": "RMSE, MAE and bias stand in the value's unit, rRMSE is the RMSE as a share of the mean. "
    "Pixels without a prediction are left out.",
}


def _columns(scores: AnyScores) -> list[str]:
    """Figures of the score table, the one that decides first."""
    if isinstance(scores, Scores):
        return ["macro F1", "accuracy", "weighted F1", "macro recall", "kappa"]
    return list(scores.names.values())


def _task_rows(scores: TaskScores) -> list[dict[str, Any]]:
    """As `_rows`, of labels or of a value."""
    gains, rows, last = {(gain.modality, gain.method): gain for gain in scores.gains}, [], ""
    for row in scores.summary:
        gain = gains.get((row.modality, row.method))
        main, *others = row.figures.values()
        rows.append(
            {
                "sensor": row.sensor if row.modality != last else "",
                "method": method_name(row.method) + ("" if row.protocol == "honest" else " (paper protocol)"),
                "gain": signed(gain.change) if gain else "",
                "kind": verdict(gain).kind if gain else "",
                "values": [f"{value.mean:.3f}" for value in others],
                "main": str(main),
                "unpredicted": _unpredicted(scores, row),
                "seeds": main.seeds,
            }
        )
        last = row.modality
    return rows


def _rows(scores: Scores) -> list[dict[str, Any]]:
    """The score table: one row per sensor and method."""
    gains = {(gain.modality, gain.method): gain for gain in scores.gains}
    rows, last = [], ""
    for row in scores.summary:
        gain = gains.get((row.modality, row.method))
        rows.append(
            {
                "sensor": row.sensor if row.modality != last else "",
                "method": method_name(row.method) + ("" if row.protocol == "honest" else " (paper protocol)"),
                "gain": signed(gain.f1_macro) if gain else "",
                "kind": verdict(gain).kind if gain else "",
                "values": [
                    str(row.accuracy),
                    *(f"{value.mean:.3f}" for value in (row.f1_weighted, row.recall_macro, row.kappa)),
                ],
                "main": str(row.f1_macro),
                "unpredicted": _unpredicted(scores, row),
                "seeds": row.f1_macro.seeds,
            }
        )
        last = row.modality
    return rows


def _unpredicted(scores: AnyScores, row: Summary | FigureSummary) -> str:
    shares = [m.unpredicted for m in scores.maps if (m.method, m.modality) == (row.method, row.modality)]
    return f"{sum(shares) / len(shares):.1%}"


def _provenance(out: Path, timings: Mapping[str, float]) -> list[tuple[str, str]]:
    """Versions, machine, sizes and timings."""
    sizes = [(name, _size(out / name)) for name in _FOLDERS if (out / name).exists()]
    entries = [
        ("Software", f"mdico_cube {__version__}, Python {platform.python_version()}, {platform.system()}"),
        ("Libraries", ", ".join(f"{name} {found}" for name in _PACKAGES if (found := _version(name)))),
        ("Sizes on disk", ", ".join(f"{name} {size / 1e6:,.1f} MB" for name, size in sizes)),
    ]
    if timings:
        entries.append(("Run time", ", ".join(f"{name} {seconds:.0f} s" for name, seconds in timings.items())))
    return entries


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
