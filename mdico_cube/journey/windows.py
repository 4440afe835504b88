"""A recipe and its cube in, the index of windows or the samples store out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mdico_cube.cube.clusters import dask_client
from mdico_cube.cube.reader import open_reader
from mdico_cube.errors import MdicoError
from mdico_cube.journey.places import Places
from mdico_cube.patches.divide import make_split
from mdico_cube.patches.draw import index_path, split_path
from mdico_cube.patches.extract import extract_samples
from mdico_cube.patches.index import SampleIndex
from mdico_cube.patches.scan import make_index
from mdico_cube.recipe import Recipe


def sample(recipe: Recipe, overwrite: bool = False, resume: bool = False) -> Path:
    """Split the labels into spatial blocks, draw windows and cut them from the cube.

    Raises:
        MdicoError: no cube, one with labels of other classes than the recipe's, an existing store without overwrite or
            resume, or a class without training windows.
    """
    places = Places.of(recipe)
    _check_classes(recipe, places)
    names, pixels = recipe.colearn.modalities, recipe.loader.source == "store"
    with _crew(recipe):
        return extract_samples(places.cube, places.samples, names, recipe.samples, overwrite, resume, pixels)


def index_samples(recipe: Recipe) -> SampleIndex:
    """Split the labels and index every candidate window of the cube: samples-index.parquet; what is current is kept.

    Raises:
        MdicoError: no cube, one with labels of other classes than the recipe's, or no window with a label.
    """
    places, section = Places.of(recipe), recipe.samples
    _check_classes(recipe, places)
    with _crew(recipe):
        make_split(places.cube, split_path(places.out), section)
        names = recipe.colearn.modalities
        return make_index(places.cube, split_path(places.out), index_path(places.out), names, section)


def _check_classes(recipe: Recipe, places: Places) -> None:
    """Raise MdicoError where the recipe's classes have changed since they were put on the cube."""
    reader = open_reader(places.cube)
    if recipe.labelling is None or recipe.labelling.values is not None or not reader.has_labels:
        return
    keys = reader.label_facts.get("keys")
    stand, wanted = [entry.name for entry in reader.legend], [entry.name for entry in recipe.labelling.classes]
    if keys is not None and (stand, keys) != (wanted, [entry.key for entry in recipe.labelling.classes]):
        raise MdicoError(
            f"{places.cube}: holds labels of {', '.join(stand)}; the recipe's labels.classes have changed since "
            f"({', '.join(wanted)}). Put them on the cube with `mdico build --resume`."
        )


@contextmanager
def _crew(recipe: Recipe) -> Iterator[None]:
    """Dask work in this block runs on the recipe's cluster, or in threads where it names none."""
    if recipe.cluster.settled in ("loop", "threads"):
        yield
    else:
        with dask_client(recipe.cluster) as client, client.as_current():
            yield
