"""One recipe in, one stage done: plan, build, sample, train, predict, evaluate, report, or all of them in order."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr
from odc.geo.geobox import GeoBox

from mdico_cube.batch import Batches
from mdico_cube.colearn.bundle import CONFIG, add_scores, save_bundle
from mdico_cube.colearn.bundle_config import read_config
from mdico_cube.colearn.encoders.registry import get_encoder
from mdico_cube.colearn.registry import get_method
from mdico_cube.colearn.trainer import fit
from mdico_cube.cube.build import build_cube, check_free
from mdico_cube.cube.catalog import catalog_folder
from mdico_cube.cube.change import writing
from mdico_cube.cube.clusters import dask_client
from mdico_cube.cube.estimate import estimate
from mdico_cube.cube.execute import cluster_for
from mdico_cube.cube.grid import grid_for
from mdico_cube.cube.items import ITEMS, Change, compare_items, read_items
from mdico_cube.cube.jobs import Retry
from mdico_cube.cube.lazy import lazy_scenes, lazy_weather
from mdico_cube.cube.plan import BuildPlan, plan_build
from mdico_cube.cube.reader import open_reader
from mdico_cube.cube.stale import counted, due_shards
from mdico_cube.cube.target import Location, cube_location, exists
from mdico_cube.cube.update import cover
from mdico_cube.cube.weather import WeatherPlan
from mdico_cube.demo.region import DemoRegion, write_region
from mdico_cube.errors import MdicoError
from mdico_cube.maps.cog import write_cog
from mdico_cube.maps.evaluate import evaluate as evaluate_maps
from mdico_cube.maps.item import degrees_box, write_collection, write_item
from mdico_cube.maps.precision import record_bf16_loss
from mdico_cube.maps.report import write_report
from mdico_cube.maps.scores import MapScores, Scores
from mdico_cube.maps.write import is_stale, map_path, write_map
from mdico_cube.patches.augment import Augment, make_augment
from mdico_cube.patches.dataset import WindowLoader, WithUnlabelled, make_loader
from mdico_cube.patches.divide import make_split
from mdico_cube.patches.draw import index_path, split_path
from mdico_cube.patches.extract import check_origin, extract_samples
from mdico_cube.patches.index import SampleIndex
from mdico_cube.patches.labels import check_labels, label_cube
from mdico_cube.patches.samples import SampleStore, open_samples
from mdico_cube.patches.scan import make_index
from mdico_cube.patches.sources import window_source
from mdico_cube.patches.splits import POOL, TEST, TRAIN, VALIDATION
from mdico_cube.progress import say
from mdico_cube.recipe import Recipe, load_recipe


@dataclass(frozen=True, slots=True)
class Places:
    """Where each result of a run stands."""

    out: Path
    cube: Location
    """In the folder or elsewhere, as the recipe's store section says."""

    @classmethod
    def of(cls, recipe: Recipe) -> Places:
        """The places of a recipe's run."""
        return cls(recipe.output, cube_location(recipe))

    @property
    def samples(self) -> Path:
        """The samples store (Zarr v3)."""
        return self.out / "samples.zarr"

    def model(self, method: str, seed: int) -> Path:
        """Checkpoints and history of one training."""
        return self.out / "models" / method / f"seed-{seed}"

    def bundle(self, method: str, seed: int, modality: str) -> Path:
        """One sensor's model."""
        return self.out / "bundles" / method / f"seed-{seed}" / modality


def plan(recipe: Recipe, items: Path | str | None = None) -> BuildPlan:
    """Search the catalog and say what a build would do; no pixel is read.

    Args:
        recipe: what to build.
        items: saved items (items.parquet, or a cube that keeps them) to plan from; the catalog is then not asked.

    Raises:
        MdicoError: bad input; the text names it.
    """
    _check(recipe)
    return plan_build(recipe, None if items is None else read_items(items), geobox=_grid(recipe, update=False))


def foresee(recipe: Recipe, planned: BuildPlan, calibrate: bool = False) -> dict[str, Any]:
    """What a build will cost, and where a cube stands, which shards it would do and why; nothing is written.

    Args:
        recipe: the plan's recipe.
        planned: what `plan` gave.
        calibrate: read one time step of one shard per modality to foresee the time.

    Returns:
        Requests, tasks, memory, seconds and warnings; and `due`: modality -> why -> shards.

    Raises:
        MdicoError: the cube that stands cannot be read, or a calibration read fails.
    """
    place = cube_location(recipe)
    due = counted(due_shards(place, planned)) if exists(place) else None
    return {**estimate(planned, recipe, calibrate), "due": due}


def refresh(recipe: Recipe) -> tuple[BuildPlan, list[Change]]:
    """Search again: the plan, and what is new, changed or gone since the items beside the cube were saved.

    Raises:
        MdicoError: bad input, or no saved items.
    """
    before = read_items(recipe.output / ITEMS)
    planned = plan(recipe)
    return planned, compare_items(before, planned.answers)


def _planned(recipe: Recipe, resume: bool, items: Path | str | None, again: bool, update: bool = False) -> BuildPlan:
    """The plan of a build: from given items, from those beside the cube where it goes on, else from a search."""
    _check(recipe)
    saved = recipe.output / ITEMS
    if items is not None:
        if again:
            raise MdicoError("--items takes saved items and --refresh searches for new ones: give one of them.")
        return plan(recipe, items)
    if again and saved.exists():
        planned, changes = refresh(recipe)
        for change in changes:
            say(f"{change.modality}: {change.item} is {change.kind}")
        return planned
    if resume and not again and saved.exists():
        return plan_build(recipe, read_items(saved), reuse=True, geobox=_grid(recipe, update))
    return plan_build(recipe, geobox=_grid(recipe, update) if resume else None)


def _grid(recipe: Recipe, update: bool) -> GeoBox | None:
    """The grid of the cube that stands, grown to the recipe's area when asked; None where the area is another."""
    place = cube_location(recipe)
    if not exists(place):
        return None
    reader = open_reader(place)
    asked = json.loads(str(reader.attrs.get("mdico_recipe", "{}"))).get("area")
    if not update and asked != recipe.area.model_dump(mode="json"):
        return None
    return cover(reader.geobox, grid_for(recipe.area), reader.shard)


def scenes(recipe: Recipe, modality: str, chunk: int = 512) -> xr.Dataset:
    """Every scene of one modality on the cube's grid, lazily: (time, y, x) per asset in the source's counts.

    One time step is one STAC item, named by the coordinate `item`; no offset is applied and no pixel is read yet. For
    looking around before a build. Weather comes as it stands in its first store: the cells around the area, by time,
    latitude and longitude in the source's units.

    Args:
        recipe: where, when and from which catalog.
        modality: one of the recipe's modalities.
        chunk: side of a Dask chunk in pixels.

    Raises:
        MdicoError: the recipe has no such modality, or nothing was found.
    """
    if modality not in recipe.modalities:
        raise MdicoError(f"the recipe has no modality {modality!r}: it has {', '.join(recipe.modalities)}.")
    planned = plan_build(recipe)
    layer = planned.layer(modality)
    if isinstance(layer, WeatherPlan):
        return lazy_weather(layer, planned.geobox)
    return lazy_scenes(layer, planned.geobox, chunk)


def build(
    recipe: Recipe,
    overwrite: bool = False,
    resume: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
    items: Path | str | None = None,
    refresh: bool = False,
    retry: Sequence[Retry] = (),
    update: bool = False,
) -> Location:
    """Build the cube and put the labels on its grid.

    Going on with a cube takes the items that were saved beside it, where the recipe still asks for the same.

    Args:
        recipe: what to build.
        overwrite: replace a cube that stands there.
        resume: go on with it; finished shards are skipped.
        workers: shards built at once, in place of the recipe's cluster.workers.
        scheduler: address of a running Dask scheduler, in place of the recipe's cluster.
        items: build from exactly these saved items (items.parquet, or a cube that keeps them).
        refresh: go on, but search again and say what is new, changed or gone; only what it touches is built.
        retry: of a cube that stands, build only the shards that "failed", have "gaps" or are "stale".
        update: let the cube grow to the recipe's area, period and modalities; what stands is not read again.

    Raises:
        MdicoError: bad input, an existing cube without overwrite or resume, or shards that could not be read.
    """
    places = Places.of(recipe)
    resume = resume or refresh or update or bool(retry)
    check_free(places.cube, overwrite, resume)
    planned = _planned(recipe, resume and not overwrite, items, refresh, update)
    check_labels(recipe.labels, planned.geobox)
    cluster = cluster_for(recipe.cluster, workers, scheduler)
    path = build_cube(recipe, overwrite, resume, cluster, planned, retry, update)
    label_cube(path, recipe.labels)
    return path


def sample(recipe: Recipe, overwrite: bool = False, resume: bool = False) -> Path:
    """Split the labels into spatial blocks, draw windows and cut them from the cube.

    Raises:
        MdicoError: no cube, an existing store without overwrite or resume, or a class without training windows.
    """
    places = Places.of(recipe)
    names, pixels = recipe.colearn.modalities, recipe.loader.source == "store"
    with _crew(recipe):
        return extract_samples(places.cube, places.samples, names, recipe.samples, overwrite, resume, pixels)


def index_samples(recipe: Recipe) -> SampleIndex:
    """Split the labels and index every candidate window of the cube: samples-index.parquet; what is current is kept.

    Raises:
        MdicoError: no cube, or no window with a label.
    """
    places, section = Places.of(recipe), recipe.samples
    with _crew(recipe):
        make_split(places.cube, split_path(places.out), section)
        names = recipe.colearn.modalities
        return make_index(places.cube, split_path(places.out), index_path(places.out), names, section)


@contextmanager
def _crew(recipe: Recipe) -> Iterator[None]:
    """Dask work in this block runs on the recipe's cluster, or in threads where it names none."""
    if recipe.cluster.settled in ("loop", "threads"):
        yield
    else:
        with dask_client(recipe.cluster) as client, client.as_current():
            yield


def train(recipe: Recipe, overwrite: bool = False, resume: bool = False) -> list[Path]:
    """Train every method and seed with every sensor, and export each sensor's model as a bundle.

    Returns:
        The bundles' folders.

    Raises:
        MdicoError: no samples, existing bundles without overwrite or resume, or training that cannot start.
    """
    places, section = Places.of(recipe), recipe.colearn
    _check(recipe)
    wanted = [(method, seed, _bundles(recipe, method, seed)) for method in section.methods for seed in section.seeds]
    standing = [folder for _, _, folders in wanted for folder in folders if folder.exists()]
    if standing and not (overwrite or resume):
        raise MdicoError(f"{standing[0]}: exists already. Use --resume to go on or --overwrite to train again.")
    for method, seed, folders in wanted:
        if resume and not overwrite and folders and _are_current(recipe, places, folders):
            say(f"train: {method}, seed {seed} stands, skipped")
        else:
            _train_one(recipe, places, method, seed, resume and not overwrite)
    return [folder for _, _, folders in wanted for folder in folders]


def _train_one(recipe: Recipe, places: Places, method: str, seed: int, resume: bool) -> None:
    section, store = recipe.colearn, open_samples(places.samples)
    _check_samples(recipe, places)
    honest = section.protocol == "honest"
    learn, stop = ((TRAIN,), (VALIDATION,)) if honest else ((TRAIN, VALIDATION), (TEST,))
    inputs = {name: store.inputs[name] for name in section.modalities}
    augment = make_augment(section.augment, {name: spec.steps for name, spec in inputs.items()})
    labelled = _loader(recipe, store, learn, seed, augment)
    train: Batches = labelled
    if get_method(method).learns_unlabelled and store.where(POOL).size:
        size = max(1, round(section.train.batch * section.plus.unlabelled))
        train = WithUnlabelled(labelled, _loader(recipe, store, (POOL,), seed, augment, size))
    trained = fit(
        method,
        inputs,
        store.legend,
        section,
        train,
        _loader(recipe, store, stop),
        store.class_counts(*learn),
        places.model(method, seed),
        seed,
        resume=resume,
    )
    for folder in _bundles(recipe, method, seed):
        save_bundle(folder, trained, folder.name, bbox=degrees_box(open_reader(places.cube)), overwrite=True)


def _loader(
    recipe: Recipe,
    store: SampleStore,
    folds: Sequence[int],
    seed: int | None = None,
    augment: Augment | None = None,
    batch: int | None = None,
) -> WindowLoader:
    section, names = recipe.loader, recipe.colearn.modalities
    cube = Places.of(recipe).cube if section.source == "cube" else None
    source = window_source(store, folds, names, cube, section.backend)
    size = batch or recipe.colearn.train.batch
    return make_loader(source, size, seed, section.workers, section.buffer, augment, section.processes)


def _bundles(recipe: Recipe, method: str, seed: int) -> list[Path]:
    """Where one training's bundles stand, one per sensor; none for a method that cannot map with one sensor."""
    names = recipe.colearn.modalities if get_method(method).maps_alone else ()
    return [Places.of(recipe).bundle(method, seed, name) for name in names]


def _are_current(recipe: Recipe, places: Places, folders: Sequence[Path]) -> bool:
    """True where every bundle stands and was trained on these samples with these options."""
    if not all(folder.exists() for folder in folders):
        return False
    _check_samples(recipe, places)
    store, wanted = open_samples(places.samples), recipe.colearn
    for folder in folders:
        config = read_config(folder / CONFIG)
        spec = store.inputs[config.modality]
        options = {"methods": wanted.methods, "seeds": wanted.seeds}
        came = (config.bands, config.steps, config.stats, config.classes, config.colearn.model_copy(update=options))
        if came != (spec.modality.band_names, spec.steps, spec.stats, store.legend, wanted):
            return False
    return True


def _check_samples(recipe: Recipe, places: Places) -> None:
    check_origin(places.samples, open_reader(places.cube))
    lacking = [name for name in recipe.colearn.modalities if name not in open_samples(places.samples).inputs]
    if lacking:
        raise MdicoError(
            f"{places.samples}: was drawn without {', '.join(lacking)}. Draw it again with `mdico sample --overwrite`."
        )


def predict(recipe: Recipe, overwrite: bool = False, resume: bool = False, workers: int | None = None) -> list[Path]:
    """Map the whole region with one sensor at a time: Zarr, Cloud-Optimized GeoTIFF and STAC item.

    Returns:
        The maps (Zarr); beside each stand the GeoTIFF and the STAC item, with the suffixes .tif and .json.

    Raises:
        MdicoError: no bundle, a bundle that does not fit the cube, or existing maps without overwrite or resume.
    """
    places, done = Places.of(recipe), []
    for method, modality, seed in _maps(recipe):
        bundle = places.bundle(method, seed, modality)
        if not bundle.exists():
            raise MdicoError(f"{bundle}: there is no model. Train it with `mdico train`.")
        target = map_path(recipe.output, method, modality, seed)
        if recipe.maps.precision == "bf16" and places.samples.exists():
            record_bf16_loss(bundle, places.samples, places.cube)
        stale = resume and is_stale(places.cube, bundle, target, recipe.maps.precision, recipe.maps.outputs)
        if stale:
            say(f"predict: {target.name} was made from another model or cube, so it is made again")
        write_map(
            places.cube,
            bundle,
            target,
            overwrite=overwrite or stale,
            resume=resume,
            workers=workers,
            pixels=recipe.maps.pixels,
            precision=recipe.maps.precision,
            outputs=recipe.maps.outputs,
        )
        write_cog(target, target.with_suffix(".tif"), f"{recipe.name}: {method}, {modality} alone")
        write_item(target, places.cube, bundle)
        done.append(target)
    write_collection(recipe.output, recipe.name)
    return done


def _maps(recipe: Recipe) -> Iterator[tuple[str, str, int]]:
    seeds = recipe.colearn.seeds if recipe.maps.seeds == "all" else recipe.colearn.seeds[:1]
    for method in recipe.maps.methods or recipe.colearn.methods:
        if not get_method(method).maps_alone:
            say(f"predict: {method} cannot map with one sensor, skipped")
            continue
        for modality in recipe.maps.modalities or recipe.colearn.modalities:
            for seed in seeds:
                yield method, modality, seed


def evaluate(recipe: Recipe, overwrite: bool = False) -> Scores:
    """Score every map on the labelled pixels of the held-out blocks; write scores.json and each bundle's model card.

    Raises:
        MdicoError: no maps, no held-out label, or scores exist already.
    """
    places = Places.of(recipe)
    wanted = [map_path(recipe.output, method, modality, seed) for method, modality, seed in _maps(recipe)]
    if all(path.exists() for path in wanted):
        check_origin(places.samples, open_reader(places.cube))
    scores = evaluate_maps(recipe.output, overwrite, wanted)
    for result in scores.maps:
        bundle = places.bundle(result.method, result.seed, result.modality)
        if bundle.exists():
            add_scores(bundle, _card_scores(result))
    return scores


def _card_scores(result: MapScores) -> dict[str, float]:
    names = ("f1_macro", "f1_weighted", "accuracy", "recall_macro", "kappa", "pixels")
    return {name: getattr(result, name) for name in names}


def report(recipe: Recipe, overwrite: bool = False) -> Path:
    """Write report.html: one file with every picture inside.

    Raises:
        MdicoError: no scores, or the report exists already.
    """
    return write_report(recipe.output, recipe, _timings(recipe), overwrite)


Stage = tuple[str, Callable[[], object]]


def run(
    recipe: Recipe,
    overwrite: bool = False,
    resume: bool = False,
    items: Path | str | None = None,
    refresh: bool = False,
) -> Scores:
    """Every stage in order. With resume, finished work is skipped and named; `items` and `refresh` are as in `build`.

    Raises:
        MdicoError: what any stage raises; what was finished before it is kept.
    """
    resume = resume or refresh
    if not (overwrite or resume):
        check_free(cube_location(recipe), overwrite, resume)
        for name in ("samples.zarr", "bundles", "maps", "scores.json", "report.html"):
            check_free(recipe.output / name, overwrite, resume)
    again = overwrite or resume
    stages: Sequence[Stage] = (
        ("build", lambda: build(recipe, overwrite, resume, items=items, refresh=refresh)),
        ("sample", lambda: sample(recipe, overwrite, resume)),
        ("train", lambda: train(recipe, overwrite, resume)),
        ("predict", lambda: predict(recipe, overwrite, resume)),
        ("evaluate", lambda: evaluate(recipe, again)),
        ("report", lambda: report(recipe, again)),
    )
    seconds: dict[str, float] = {} if overwrite else _timings(recipe)
    results: dict[str, object] = {}
    for name, stage in stages:
        start = time.monotonic()
        results[name] = stage()
        seconds[name] = round(seconds.get(name, 0.0) + time.monotonic() - start, 2)
        with writing(recipe.output):
            _timings_path(recipe).write_text(json.dumps(seconds, indent=1), encoding="utf-8")
    scores = results["evaluate"]
    assert isinstance(scores, Scores)
    return scores


def _timings_path(recipe: Recipe) -> Path:
    return recipe.output / "timings.json"


def _timings(recipe: Recipe) -> dict[str, float]:
    path = _timings_path(recipe)
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): float(seconds) for name, seconds in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}  # none yet, or not ours to read


def prepare_demo(
    folder: Path | str, region: DemoRegion | None = None, overwrite: bool = False, resume: bool = False
) -> Recipe:
    """Write the embedded region and its recipe into a folder: files as a catalog would hold them.

    Raises:
        MdicoError: the folder holds a region already and neither overwrite nor resume was asked for.
    """
    folder = Path(folder)
    recipe_path = folder / "demo.yml"
    check_free(recipe_path, overwrite, resume)
    if overwrite or not recipe_path.exists():
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_region(folder / "region", region or DemoRegion())
            template = (pipeline_folder() / "demo.yml").read_text(encoding="utf-8")
            recipe_path.write_text(_fitted(template, folder / "region"), encoding="utf-8")
    return load_recipe(recipe_path)


def _fitted(template: str, region: Path) -> str:
    """The demo's recipe with the bounds and the year of a region."""
    card = json.loads((region / "region.json").read_text(encoding="utf-8"))
    bounds = ", ".join(f"{edge:.0f}" for edge in card["bounds"])
    text = re.sub(r"bounds: \[.*?\]", f"bounds: [{bounds}]", template)
    return re.sub(r"\b\d{4}(-\d\d-\d\d)", rf"{card['year']:04d}\1", text)


def pipeline_folder() -> Path:
    """The folder of the recipes that come with the project."""
    return catalog_folder().parent / "pipelines"


def _check(recipe: Recipe) -> None:
    """What can be known to fail before anything is read."""
    get_encoder(recipe.colearn.encoder.name)
    alone = {method: get_method(method).maps_alone for method in recipe.colearn.methods}
    for method in recipe.maps.methods or ():
        if not get_method(method).maps_alone:
            raise MdicoError(f"maps.methods: {method} cannot map with one sensor. Take it out of the list.")
    if not any(alone.values()):
        raise MdicoError(
            f"colearn.methods: {', '.join(alone)} cannot map with one sensor. Add one that can, for example mdico."
        )


__all__ = [
    "Places",
    "build",
    "evaluate",
    "foresee",
    "index_samples",
    "pipeline_folder",
    "plan",
    "predict",
    "prepare_demo",
    "refresh",
    "report",
    "run",
    "sample",
    "scenes",
    "train",
]
