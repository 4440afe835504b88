"""Which maps are made and what each holds, as a recipe says it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from mdico_cube.recipe.section import DEVICE, Section, Share
from mdico_cube.recipe.training import Engine, Precision

Device = Annotated[str, Field(pattern=DEVICE)]
MapOutput = Literal["probabilities", "entropy", "observations", "applicability"]

TOGETHER = ("auto", "fused")
"""What a map may be made with in place of one sensor."""


class MapOptions(Section):
    """How one map is made and what it holds."""

    pixels: Annotated[int, Field(ge=1)] | None = None
    """Pixels that go through the model at once on a processor, few enough to stay in its cache; null = 1024, or 2048
    where bf16 and int8 make each of them small. A GPU takes as many as its memory holds."""
    device: Device = "auto"
    """What computes: cpu; cuda = a GPU, or with Dask one per worker; cuda:1 = the second one; auto = a GPU where torch
    sees one."""
    precision: Precision = "32-true"
    """Arithmetic of the model: bf16 is about twice and int8 about four times as fast where the processor knows it, and
    they change a few classes; the share is measured on the validation windows and written into the bundle's scores and
    the map's attributes. int8 is calibrated on training windows first."""
    backend: Engine = "torch"
    """What computes the model: torch (always the same bits), compile (torch.compile), onnx (ONNX Runtime) or openvino;
    each is compared with the plain model when it is loaded."""
    outputs: tuple[MapOutput, ...] = ()
    """A map's extras beside class and confidence, labels and the probability of each, or a value: probabilities and
    entropy in percent (not of a value), observations = valid steps, applicability = distance to the training data in
    percent of the distance that still counts as known."""
    mask: Path | None = None
    """Vector file whose polygons are mapped; everything else stays empty and is not read. null = the whole cube."""
    step: Annotated[float, Field(gt=0)] | None = None
    """Of a map of a value: what one count of a 16-bit integer is worth, such as 0.01; null = float32."""
    abstain: Share | None = None
    """Smallest class probability that counts as an answer: a layer `abstain` marks the pixels below it, and with the
    output applicability those beyond what was trained on. Their class is still written. null = no such layer."""
    window: Annotated[int, Field(ge=8)] = 256
    """Side in pixels of the windows in which a model that looks at neighbours runs; they overlap and are blended."""
    least: Annotated[int, Field(ge=1)] = 1
    """Observed steps a sensor needs at a pixel to be taken there, where a map chooses among sensors."""

    @property
    def at_once(self) -> int:
        """The pixels, settled."""
        return self.pixels or (2048 if self.precision in ("bf16", "int8") else 1024)


class MapSection(MapOptions):
    """Which maps are drawn."""

    modalities: tuple[str, ...] | None = None
    """Sensors to map with, one at a time; null = every co-learned one. `auto` takes at each pixel the best sensor that
    was observed there, `fused` all that were."""
    methods: tuple[str, ...] | None = None
    """Methods to map with; null = every trained one."""
    seeds: Literal["first", "all"] = "first"
    """Map with the first seed's model or with every seed's (scores then come with a spread)."""
    bundles: tuple[Path, ...] = ()
    """Folders of bundles of another run to map with, such as ../my-region/bundles/mdico/seed-0/sentinel2; empty = those
    that this recipe trains. Then methods and seeds say nothing, and colearn and labels may be left out."""
    polygons: Literal["gpkg", "geojson"] | None = None
    """Also write the classes as polygons beside the GeoTIFF, one per connected patch; geojson is in degrees."""

    @property
    def alone(self) -> tuple[str, ...]:
        """Sensors that are named to map alone."""
        return tuple(name for name in self.modalities or () if name not in TOGETHER)

    @property
    def options(self) -> dict[str, Any]:
        """What every map of the recipe is made with, by name."""
        return {name: getattr(self, name) for name in MapOptions.model_fields}
