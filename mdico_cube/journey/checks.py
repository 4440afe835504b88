"""A recipe in, what can be known to fail before anything is read."""

from __future__ import annotations

from mdico_cube.colearn.encoders.registry import get_encoder
from mdico_cube.colearn.registry import get_method
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import Recipe


def check_methods(recipe: Recipe) -> None:
    """What can be known to fail before anything is read; a recipe that builds a cube alone names no method."""
    if recipe.learning is None:
        return
    get_encoder(recipe.colearn.encoder.name)
    alone = {method: get_method(method).maps_alone for method in recipe.colearn.methods}
    for method in recipe.maps.methods or ():
        if not get_method(method).maps_alone:
            raise MdicoError(f"maps.methods: {method} cannot map with one sensor. Take it out of the list.")
    if not any(alone.values()):
        raise MdicoError(
            f"colearn.methods: {', '.join(alone)} cannot map with one sensor. Add one that can, for example mdico."
        )
