"""The sections of a recipe in, one checked Recipe out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import ConfigDict, Field, field_validator, model_validator
from pyproj import CRS

from mdico_cube.errors import MdicoError
from mdico_cube.markup import Card, Table
from mdico_cube.recipe.area import Area, PeriodSection
from mdico_cube.recipe.maps import MapSection
from mdico_cube.recipe.samples import LabelSection, LoaderSection, SampleSection
from mdico_cube.recipe.section import NAME, Section
from mdico_cube.recipe.sources import FallbackSection, ModalitySection, ReadSection
from mdico_cube.recipe.store import ClusterSection, StoreSection
from mdico_cube.recipe.training import ColearnSection
from mdico_cube.recipe.tuning import TuneSection

S = TypeVar("S", bound=Section)


class Recipe(Section):
    """The whole run. A recipe without labels or colearn builds a cube, and nothing more."""

    model_config = ConfigDict(serialize_by_alias=True)

    name: Annotated[str, Field(pattern=NAME)]
    """Short name, used in titles."""
    output: Path
    """Folder for cube, samples, models, maps and report; relative to the recipe."""
    area: Area
    period: PeriodSection
    catalog: str
    """Name of a file in catalogs/ ("local"), or a path to one."""
    href: str | None = None
    """Where the catalog is: a path relative to the recipe, or a URL; null takes the catalog file's own."""
    fallback: tuple[FallbackSection, ...] = ()
    """Other catalogs to look in, in this order: for the same acquisition when a scene's files cannot be read, for all
    scenes when the catalog cannot be searched, and for weather when its stores cannot be reached, or fail during the
    build while another catalog has the same cells."""
    modalities: Annotated[dict[str, ModalitySection], Field(min_length=1)]
    """Sensor -> options. An empty section takes every default."""
    labelling: Annotated[LabelSection | None, Field(alias="labels")] = None
    """A cube can be built without it."""
    samples: SampleSection = SampleSection()
    loader: LoaderSection = LoaderSection()
    learning: Annotated[ColearnSection | None, Field(alias="colearn")] = None
    """A cube can be built without it."""
    tune: TuneSection = TuneSection()
    maps: MapSection = MapSection()
    read: ReadSection = ReadSection()
    store: StoreSection = StoreSection()
    cluster: ClusterSection = ClusterSection()

    @field_validator("modalities", mode="before")
    @classmethod
    def _empty_sections(cls, value: Any) -> Any:
        return {k: {} if v is None else v for k, v in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="before")
    @classmethod
    def _split_orbits(cls, value: Any) -> Any:
        return _orbits_apart(value) if isinstance(value, dict) else value

    @model_validator(mode="before")
    @classmethod
    def _patch_as_a_whole(cls, value: Any) -> Any:
        return _pooled(value) if isinstance(value, dict) else value

    @model_validator(mode="before")
    @classmethod
    def _unit_of_values(cls, value: Any) -> Any:
        return _with_unit(value) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _orbits_of_radar(self) -> Self:
        for name, section in self.modalities.items():
            if section.orbit != "both" and name != "sentinel1":
                raise ValueError(f"modalities.{name}.orbit is {section.orbit}, but only sentinel1 has orbit directions")
        return self

    @model_validator(mode="after")
    def _known_names(self) -> Self:
        mine, learning = tuple(self.modalities), self.learning
        trained, whose = (
            (mine, "the recipe's modalities do")
            if learning is None
            else (learning.modalities, "colearn.modalities does")
        )
        tuned = (self.tune.modality,) if self.tune.modality else ()
        for where, names, known, who in (
            ("colearn.modalities", learning.modalities if learning else (), mine, "the recipe's modalities do"),
            ("maps.modalities", self.maps.alone, trained, whose),
            ("samples.coarsen", tuple(self.samples.coarsen), mine, "the recipe's modalities do"),
            ("samples.min_valid", self.samples.judged, mine, "the recipe's modalities do"),
            ("tune.modality", tuned, trained, whose),
            ("maps.methods", self.maps.methods or (), learning and learning.methods, "colearn.methods does"),
        ):
            missing = [name for name in names if known is not None and name not in known]
            if missing:
                raise ValueError(f"{where} names {', '.join(missing)}, which {who} not list ({', '.join(known or ())})")
        return self

    @model_validator(mode="after")
    def _values_or_classes(self) -> Self:
        if self.labelling is None or self.labelling.values is None:
            return self
        if self.samples.places is not None and self.samples.places.label is not None:
            raise ValueError(
                "samples.places.label are classes, but labels.values are learned: leave it out, and the value at each "
                "place is taken from labels.path"
            )
        if self.samples.min_purity:
            raise ValueError("samples.min_purity is a share of classes, but labels.values are learned: leave it out")
        return self

    @model_validator(mode="after")
    def _task_fits(self) -> Self:
        if self.learning is None:
            return self
        kind, pool = self.learning.task.kind, self.learning.encoder.pool
        if self.labelling is not None and (kind == "regression") != (self.labelling.values is not None):
            raise ValueError(
                "labels.values and colearn.task.kind: regression go together: "
                + ("name the value in labels.values" if kind == "regression" else "set colearn.task.kind: regression")
            )
        whole = self.samples.target == "dense" and pool > 1 and self.learning.task.share is not None
        if kind == "multilabel" and not whole:
            raise ValueError(
                "colearn.task.kind multilabel learns which classes stand in a patch: leave samples.target dense, set "
                "colearn.encoder.pool to the patch and colearn.task.share to the share that counts, such as 0.07"
            )
        if self.learning.protocol == "honest" and self.samples.validation == 0:
            raise ValueError("samples.validation is 0, but the honest protocol stops training on validation blocks")
        return self

    @property
    def labels(self) -> LabelSection:
        """The labels of a run that goes past its cube.

        Raises:
            MdicoError: the recipe has none.
        """
        return self._needed("labels", self.labelling)

    @property
    def colearn(self) -> ColearnSection:
        """What a run learns that goes past its cube.

        Raises:
            MdicoError: the recipe says nothing of it.
        """
        return self._needed("colearn", self.learning)

    def check_whole(self) -> None:
        """Raise MdicoError where the recipe ends with its cube: told before the cube is built, not after."""
        _ = self.labels, self.colearn

    def _needed(self, key: str, section: S | None) -> S:
        if section is None:
            raise MdicoError(
                f"recipe {self.name}: has no `{key}` section. Add it, or build the cube alone: `mdico build`."
            )
        return section

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return recipe_card(self).html()


def recipe_card(recipe: Recipe) -> Card:
    """The choices of a run at a glance."""
    area, period, labels, learning = recipe.area, recipe.period, recipe.labelling, recipe.learning
    where = next(
        f"{key} {', '.join(f'{edge:.10g}' for edge in value) if isinstance(value, tuple) else value}"
        for key in ("bbox", "bounds", "geojson", "tile")
        if (value := getattr(area, key))
    )
    unit = "degrees" if area.crs != "auto" and CRS.from_user_input(area.crs).is_geographic else "m"
    steps = period.period.steps()
    rows = [
        (name, ", ".join(section.bands or ("all",)), section.reducer or "the sensor's own")
        for name, section in recipe.modalities.items()
    ]
    facts = [
        ("area", f"{where}, {area.crs}, pixels of {area.resolution:g} {unit}"),
        ("period", f"{period.start} to {period.end}, {len(steps)} steps ({period.step})"),
        ("catalog", recipe.catalog),
    ]
    if labels is not None:
        facts.append(("labels", str(labels.path)))
    if learning is not None:
        facts.append(("trained together", ", ".join(learning.modalities)))
        facts.append(("methods", f"{', '.join(learning.methods)}; seeds {', '.join(map(str, learning.seeds))}"))
    return Card(
        title=recipe.name,
        kind="mdico recipe",
        facts=[*facts, ("output", str(recipe.output))],
        tables=[Table(("sensor", "bands", "reducer"), rows)],
        legend=[(each.name, each.color) for each in labels.classes] if labels is not None else [],
    )


def _pooled(data: dict[str, Any]) -> dict[str, Any]:
    """`samples.target: patch` with encoders that average what they see in the patch."""
    samples, colearn = data.get("samples"), data.get("colearn")
    if not (isinstance(samples, dict) and samples.get("target") == "patch" and isinstance(colearn, dict)):
        return data
    encoder = colearn.get("encoder") or {}
    if not isinstance(encoder, dict):
        return data
    return {**data, "colearn": {**colearn, "encoder": {"pool": samples.get("patch", 1), **encoder}}}


def _with_unit(data: dict[str, Any]) -> dict[str, Any]:
    """The unit of `labels.values` among the options that a model keeps."""
    labels, colearn = data.get("labels"), data.get("colearn")
    values = labels.get("values") if isinstance(labels, dict) else None
    task = colearn.get("task") if isinstance(colearn, dict) else None
    if not (isinstance(values, dict) and isinstance(task, dict) and isinstance(colearn, dict)):
        return data
    if task.get("kind") != "regression":
        return data
    return {**data, "colearn": {**colearn, "task": {"unit": values.get("unit", ""), **task}}}


def _orbits_apart(data: dict[str, Any]) -> dict[str, Any]:
    """`sentinel1: {orbit: split}` to one section per direction, wherever the recipe names sentinel1."""
    modalities = data.get("modalities")
    if not isinstance(modalities, dict):
        return data
    radar = modalities.get("sentinel1")
    if not isinstance(radar, dict) or radar.get("orbit") != "split":
        return data
    directions = ("sentinel1_ascending", "sentinel1_descending")
    rest = {key: option for key, option in radar.items() if key != "orbit"}

    def apart(names: Any) -> Any:
        if not isinstance(names, list | tuple):
            return names
        return [one for name in names for one in (directions if name == "sentinel1" else (name,))]

    sections = {
        one: rest if one in directions else section for name, section in modalities.items() for one in apart([name])
    }
    named = {
        key: {**data[key], "modalities": apart(data[key]["modalities"])}
        for key in ("colearn", "maps")
        if isinstance(data.get(key), dict) and "modalities" in data[key]
    }
    samples = data.get("samples")
    if isinstance(samples, dict):
        keyed = {
            key: {**dict.fromkeys(directions, each["sentinel1"]), **{k: v for k, v in each.items() if k != "sentinel1"}}
            for key in ("min_valid", "coarsen")
            if isinstance(each := samples.get(key), dict) and "sentinel1" in each
        }
        named["samples"] = {**samples, **keyed}
    return {**data, "modalities": sections, **named}
