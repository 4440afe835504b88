"""A run's cube, maps and scores in, the report's sections of captioned pictures out; also the poster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mdico_cube.cube.reader import CubeReader, open_reader
from mdico_cube.cube.target import cube_of
from mdico_cube.errors import MdicoError
from mdico_cube.maps.charts import (
    availability_png,
    class_f1_png,
    confusion_png,
    read_histories,
    training_png,
)
from mdico_cube.maps.evaluate import read_scores
from mdico_cube.maps.images import (
    QuickLook,
    colored,
    map_classes,
    metres_per_pixel,
    painted,
    quick_look,
    thinned,
)
from mdico_cube.maps.plots import (
    FOLDS,
    Panel,
    class_entries,
    outcome_entries,
    outcome_panel,
    outcomes,
    panels_png,
    poster_png,
)
from mdico_cube.maps.scores import BASELINE, MapScores, Scores
from mdico_cube.maps.style import method_name
from mdico_cube.maps.write import map_path
from mdico_cube.patches.divide import open_split
from mdico_cube.patches.splits import TEST, UNUSED


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of the report."""

    png: bytes
    alt: str
    """What a person who cannot see it should know."""


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, a sentence and pictures."""

    key: str
    title: str
    text: str
    pictures: tuple[Picture, ...]


class Gallery:
    """Draws one run; every raster is read once, thinned to about 1000 pixels a side."""

    def __init__(self, out: Path, reader: CubeReader, scores: Scores) -> None:
        self.out, self.reader, self.scores = out, reader, scores
        self.metres = metres_per_pixel(reader)
        self.modalities = sorted({item.modality for item in scores.maps})

    @cached_property
    def looks(self) -> dict[str, QuickLook]:
        """Quick-look of every sensor of the cube."""
        return {name: quick_look(self.reader, name) for name in self.reader.modalities}

    @cached_property
    def labels(self) -> npt.NDArray[np.int16]:
        """Thinned class index, -1 = unlabelled."""
        return np.asarray(thinned(self.reader, self.reader.labels), np.int16)

    @cached_property
    def folds(self) -> npt.NDArray[np.uint8]:
        """Thinned fold values."""
        split = open_split(self.out / "split.zarr")
        return np.asarray(thinned(self.reader, lambda y, x: split.folds(self.reader, y, x)), np.uint8)

    def sections(self) -> tuple[Section, ...]:
        """Everything the report shows, in its order."""
        return tuple(
            section
            for section in (
                sensors_section(self.looks, self.metres),
                availability_section(self.looks, self.reader),
                self._truth(),
                self._maps(),
                self._confusion(),
                self._classes(),
                self._training(),
            )
            if section.pictures
        )

    def _truth(self) -> Section:
        labels = Panel(colored(self.labels, self.scores.classes), "Labels\nclass known on the ground")
        folds = Panel(painted(self.folds.astype(np.int16), [c for _, c in FOLDS]), "Folds\nblocks that train or score")
        share = float((self.folds == TEST).sum() / max((self.folds != UNUSED).sum(), 1))
        entries = class_entries(self.scores.classes, "no label")
        image = panels_png([labels, folds], self.metres, (entries, list(FOLDS)))
        text = f"Blocks are held out as a whole ({share:.0%} of the labelled pixels in use), with a guard strip around."
        pictures = (Picture(image, "Label map and map of the folds."),)
        return Section("labels", "Labels and held-out blocks", text, pictures)

    def _maps(self) -> Section:
        pictures = tuple(picture for modality in self.modalities for picture in self._comparisons(modality))
        text = "Each map was made with one sensor alone."
        methods = {item.method for item in self.scores.maps}
        if BASELINE in methods and len(methods) > 1:
            text += (
                " The right panel compares the two against the labels; where a pixel lies in a training block, "
                "being right there is no merit."
            )
        return Section("maps", "Maps by one sensor alone", text, pictures)

    def _comparisons(self, modality: str) -> Iterator[Picture]:
        """Independent, the other method, and who is right; a lone method is shown by itself."""
        chosen = self._first_seed(modality)
        base = next((item for item in chosen if item.method == BASELINE), None)
        others = [item for item in chosen if item is not base]
        for item in others or chosen:
            pair = [base, item] if base and item is not base else [item]
            images = [self._classes_of(one) for one in pair]
            panels = [
                self._map_panel(one, index, f"{one.sensor} alone, {method_name(one.method)}")
                for one, index in zip(pair, images, strict=True)
            ]
            legends = [class_entries(self.scores.classes, "no prediction, no label")]
            alt = f"Map made with {item.sensor} alone by " + " and by ".join(method_name(one.method) for one in pair)
            if len(pair) == 2:
                names = (method_name(pair[0].method), method_name(pair[1].method))
                outcome = outcomes(images[0], images[1], self.labels)
                panels.append(outcome_panel(outcome, self.folds == TEST, names, "Who is right"))
                legends.append(outcome_entries(names))
                alt += ", and where each of them is right"
            yield Picture(panels_png(panels, self.metres, tuple(legends)), alt + ".")

    def _confusion(self) -> Section:
        pictures = tuple(
            Picture(confusion_png(self.scores, name), f"Confusion matrices of the maps by {name} alone.")
            for name in self.modalities
        )
        text = "Held-out pixels of all seeds together; a column named none holds pixels without a prediction."
        return Section("confusion", "What is taken for what", text, pictures)

    def _classes(self) -> Section:
        picture = Picture(class_f1_png(self.scores), "F1 per class for every sensor and method.")
        return Section("classes", "Class by class", "Whiskers are standard deviations over seeds.", (picture,))

    def _training(self) -> Section:
        histories = read_histories(self.out)
        sensors = {item.modality: item.sensor for item in self.scores.maps}
        pictures = (Picture(training_png(histories, sensors), "Loss and macro F1 per epoch."),) if histories else ()
        text = "One line per seed. Methods sum different losses: compare their levels within a method only."
        return Section("training", "How training went", text, pictures)

    def poster(self) -> bytes:
        """Labels and two sensors above, their single-sensor maps in the middle, F1 per class below."""
        names = sorted(self.modalities, key=lambda name: not self.reader.modalities[name].temporal)[:2]
        best = [self._last_method(name) for name in names]
        return poster_png(
            Panel(colored(self.labels, self.scores.classes), "Labels\nclass known on the ground"),
            [Panel(self.looks[name].image, self.looks[name].title) for name in names],
            [
                self._map_panel(item, self._classes_of(item), f"Map by {item.sensor} alone, {method_name(item.method)}")
                for item in best
            ],
            self.scores,
            self.metres,
        )

    def _first_seed(self, modality: str) -> list[MapScores]:
        """The first seed's map of each method, the baseline first."""
        first: dict[str, MapScores] = {}
        for item in sorted(self.scores.maps, key=lambda m: (m.method != BASELINE, m.method, m.seed)):
            if item.modality == modality:
                first.setdefault(item.method, item)
        return list(first.values())

    def _last_method(self, modality: str) -> MapScores:
        chosen = self._first_seed(modality)
        return next((item for item in chosen if item.method == "mdico"), chosen[-1])

    def _classes_of(self, item: MapScores) -> npt.NDArray[np.int16]:
        return map_classes(self.reader, map_path(self.out, item.method, item.modality, item.seed))

    def _map_panel(self, item: MapScores, index: npt.NDArray[np.int16], title: str) -> Panel:
        image = colored(index, self.scores.classes)
        return Panel(image, f"{title}\nheld-out macro F1 {item.f1_macro:.3f} (seed {item.seed})")


def sensors_section(looks: Mapping[str, QuickLook], metres: float | None) -> Section:
    """What each sensor of a cube looks like."""
    pictures = tuple(
        Picture(
            panels_png([Panel(look.image, look.title) for look in row], metres),
            "Quick-looks of " + ", ".join(look.title.replace("\n", ": ") for look in row),
        )
        for row in abreast(list(looks.values()))
    )
    return Section("sensors", "What the sensors saw", "One picture per sensor of the cube.", pictures)


def availability_section(looks: Mapping[str, QuickLook], reader: CubeReader) -> Section:
    """How much each sensor with time steps observed."""
    timed = {name: look for name, look in looks.items() if reader.modalities[name].temporal}
    worst = "; ".join(f"{name}: lowest {min(look.availability):.0%}" for name, look in timed.items())
    pictures = (Picture(availability_png(timed), f"Observed pixels per time step. {worst}."),) if timed else ()
    text = "Share of pixels observed in every band, per time step. Clouds make the gaps of optical sensors."
    return Section("availability", "When they saw it", text, pictures)


def write_poster(out: Path, target: Path) -> Path:
    """Write the run's poster as a PNG.

    Raises:
        MdicoError: the run's maps hold no classes.
    """
    out, target, scores = Path(out), Path(target), read_scores(out)
    if not isinstance(scores, Scores):
        raise MdicoError(f"{out}: a poster is of maps of classes. `mdico report` shows every kind.")
    target.write_bytes(Gallery(out, open_reader(cube_of(out)), scores).poster())
    return target


def abreast(looks: list[QuickLook]) -> list[list[QuickLook]]:
    """Rows of three at most and of nearly one length: a picture alone in its row would be drawn far too large."""
    count = -(-len(looks) // 3)
    edges = [round(len(looks) * k / count) for k in range(count + 1)] if count else []
    return [looks[left:right] for left, right in pairwise(edges)]
