"""A recipe whose models are trained in, what each method's spaces hold and how sure its maps are out."""

from __future__ import annotations

from mdico_cube.colearn.registry import get_method
from mdico_cube.errors import MdicoError
from mdico_cube.journey.places import Places
from mdico_cube.maps.analyse import Analysis, analyse_bundles
from mdico_cube.maps.spaces_picture import LAYOUTS, Layout
from mdico_cube.progress import say, track
from mdico_cube.recipe import Recipe


def analyse(recipe: Recipe, layout: Layout = "tsne", count: int = 400) -> list[Analysis]:
    """Look at every trained method and seed on the held-out windows: OUTPUT/analysis/METHOD-seedN.png and .json.

    Args:
        recipe: whose models stand.
        layout: "tsne" or "pca".
        count: windows in each picture.

    Raises:
        MdicoError: an unknown layout, or no model.
    """
    if layout not in LAYOUTS:
        raise MdicoError(f"pictures are laid out by {' or '.join(LAYOUTS)}, came {layout!r}. Choose one of them.")
    places, names = Places.of(recipe), recipe.colearn.modalities
    jobs = []
    for method in recipe.colearn.methods:
        if not get_method(method).maps_alone:
            say(f"analyse: {method} cannot map with one sensor, skipped")
            continue
        for seed in recipe.colearn.seeds:
            bundles = {name: places.bundle(method, seed, name) for name in names}
            lacking = [folder for folder in bundles.values() if not folder.exists()]
            if lacking:
                raise MdicoError(f"{lacking[0]}: there is no model. Train it with `mdico train`.")
            jobs.append((bundles, places.out / "analysis" / f"{method}-seed{seed}"))
    return [
        analyse_bundles(bundles, places.samples, target, places.cube, count, layout)
        for bundles, target in track(jobs, "analyse", len(jobs))
    ]
