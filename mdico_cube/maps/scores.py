"""A confusion matrix in, the scores of a map out; the scores of many maps in, a summary and a table out. No I/O."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt
from rich.box import SIMPLE_HEAD
from rich.table import Table
from sklearn.metrics import accuracy_score, cohen_kappa_score, precision_recall_fscore_support

from mdico_cube.spec import LabelClass

Counts = npt.NDArray[np.int64]
BASELINE = "independent"
"""The method every other one is compared with."""


@dataclass(frozen=True, slots=True)
class ClassScores:
    """One class of one map on the held-out labels."""

    name: str
    f1: float
    precision: float
    recall: float
    support: int
    """Held-out pixels that carry this label."""


@dataclass(frozen=True, slots=True)
class MapScores:
    """One map against the held-out labels. A pixel without a prediction counts as an error."""

    method: str
    modality: str
    sensor: str
    """What a person calls the modality."""
    seed: int
    protocol: str
    """"honest", or "paper" = early stopping looked at the scored fold."""
    f1_macro: float
    """Mean over the classes that occur among the held-out labels."""
    f1_weighted: float
    accuracy: float
    recall_macro: float
    kappa: float
    unpredicted: float
    """Share of held-out pixels without a prediction."""
    pixels: int
    """Held-out labelled pixels."""
    classes: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]
    """(K, K + 1) pixels: row = label, column = prediction, last column = no prediction."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A mean over seeds."""

    mean: float
    sd: float | None
    """Standard deviation (n - 1); None for a single seed."""
    seeds: int

    def __str__(self) -> str:
        return f"{self.mean:.3f}" if self.sd is None else f"{self.mean:.3f} ± {self.sd:.3f}"


@dataclass(frozen=True, slots=True)
class Summary:
    """One method and modality over its seeds."""

    method: str
    modality: str
    sensor: str
    protocol: str
    f1_macro: Spread
    f1_weighted: Spread
    accuracy: Spread
    recall_macro: Spread
    kappa: Spread


@dataclass(frozen=True, slots=True)
class Gain:
    """A method minus the independent baseline for one modality, seed by seed."""

    method: str
    modality: str
    sensor: str
    f1_macro: Spread
    """Difference in macro F1 over the seeds both have."""
    accuracy: Spread
    wins: int
    """Seeds in which the method is better in macro F1."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Every map of a run on its held-out blocks."""

    classes: tuple[LabelClass, ...]
    maps: tuple[MapScores, ...]

    @property
    def task(self) -> str:
        """What the maps tell."""
        return "classes"

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes without a held-out label: they take no part in the means over classes."""
        support = [sum(item.classes[k].support for item in self.maps) for k in range(len(self.classes))]
        return tuple(item.name for item, n in zip(self.classes, support, strict=True) if n == 0)

    @property
    def summary(self) -> tuple[Summary, ...]:
        """Mean and spread over seeds, in the order in which modality and method first occur."""
        return tuple(_summary(key, maps) for key, maps in grouped(self.maps).items())

    @property
    def gains(self) -> tuple[Gain, ...]:
        """Every other method against the independent one, per modality; only seeds that both have."""
        groups = grouped(self.maps)
        pairs = [(key, groups.get((key[0], BASELINE, key[2]))) for key in groups if key[1] != BASELINE]
        gains = [_gain(groups[key], base) for key, base in pairs if base]
        return tuple(gain for gain in gains if gain is not None)

    def table(self, title: str = "Held-out scores of maps", runs: str = "seeds") -> Table:
        """The summary for a terminal: one line per sensor and method, with the gain over the independent baseline."""
        return _classes_table(self, title, runs)

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready data; summary and gains are written for readers and computed again when read."""
        return {
            "version": 1,
            "classes": [asdict(item) for item in self.classes],
            "summary": [asdict(item) for item in self.summary],
            "gains": [asdict(item) for item in self.gains],
            "maps": [asdict(item) for item in self.maps],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of to_dict."""
        maps = tuple(
            MapScores(
                **{
                    **item,
                    "classes": tuple(ClassScores(**entry) for entry in item["classes"]),
                    "confusion": tuple(tuple(row) for row in item["confusion"]),
                }
            )
            for item in data["maps"]
        )
        return cls(tuple(LabelClass(**item) for item in data["classes"]), maps)


def score(confusion: Counts, classes: tuple[LabelClass, ...], facts: dict[str, Any]) -> MapScores:
    """Scores from a (K, K + 1) confusion matrix; facts are method, modality, sensor, seed and protocol."""
    label, predicted = (index.ravel() for index in np.indices(confusion.shape))
    weight = confusion.ravel()
    support = confusion.sum(axis=1)
    each = precision_recall_fscore_support(
        label, predicted, labels=range(len(classes)), sample_weight=weight, zero_division=0.0
    )
    precision, recall, f1 = (np.asarray(values, dtype=float) for values in each[:3])
    present = support > 0
    return MapScores(
        **facts,
        f1_macro=float(f1[present].mean()),
        f1_weighted=float(np.average(f1, weights=support)),
        accuracy=float(accuracy_score(label, predicted, sample_weight=weight)),
        recall_macro=float(recall[present].mean()),
        kappa=_kappa(label, predicted, weight),
        unpredicted=float(confusion[:, -1].sum() / support.sum()),
        pixels=int(support.sum()),
        classes=tuple(
            ClassScores(item.name, float(f1[k]), float(precision[k]), float(recall[k]), int(support[k]))
            for k, item in enumerate(classes)
        ),
        confusion=tuple(tuple(int(n) for n in row) for row in confusion),
    )


def _kappa(label: Counts, predicted: Counts, weight: Counts) -> float:
    """Cohen's kappa; 1 where one class is everything and every prediction is right."""
    used = weight > 0
    if len({*label[used], *predicted[used]}) == 1:
        return 1.0
    return float(cohen_kappa_score(label[used], predicted[used], sample_weight=weight[used]))


class Scored(Protocol):
    """Any map's scores."""

    @property
    def method(self) -> str: ...  # noqa: D102
    @property
    def modality(self) -> str: ...  # noqa: D102
    @property
    def seed(self) -> int: ...  # noqa: D102
    @property
    def protocol(self) -> str: ...  # noqa: D102


S = TypeVar("S", bound=Scored)


def grouped(maps: tuple[S, ...]) -> dict[tuple[str, str, str], list[S]]:
    """Maps by (modality, method, protocol): sensors in order of their names, the baseline first within each."""
    groups: dict[tuple[str, str, str], list[S]] = defaultdict(list)
    for item in sorted(maps, key=lambda m: (m.modality, m.method != BASELINE, m.method, m.protocol, m.seed)):
        groups[item.modality, item.method, item.protocol].append(item)
    return groups


def spread(values: list[float]) -> Spread:
    """Mean and standard deviation over seeds."""
    return Spread(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


def _summary(key: tuple[str, str, str], maps: list[MapScores]) -> Summary:
    modality, method, protocol = key
    names = ("f1_macro", "f1_weighted", "accuracy", "recall_macro", "kappa")
    sensor = maps[0].sensor
    return Summary(method, modality, sensor, protocol, *(spread([getattr(m, name) for m in maps]) for name in names))


def _gain(maps: list[MapScores], baseline: list[MapScores]) -> Gain | None:
    base = {item.seed: item for item in baseline}
    pairs = [(item, base[item.seed]) for item in maps if item.seed in base]
    if not pairs:
        return None
    f1 = [mine.f1_macro - other.f1_macro for mine, other in pairs]
    accuracy = [mine.accuracy - other.accuracy for mine, other in pairs]
    first = maps[0]
    return Gain(
        first.method, first.modality, first.sensor, spread(f1), spread(accuracy), sum(value > 0 for value in f1)
    )


class Tabled(Protocol):
    """Scores of any kind."""

    def table(self, title: str, runs: str) -> Table:
        """See `scores_table`."""


def scores_table(scores: Tabled, title: str = "Held-out scores of maps", runs: str = "seeds") -> Table:
    """The summary for a terminal: one line per sensor and method, with the gain over the independent baseline."""
    return scores.table(title, runs)


def _classes_table(scores: Scores, title: str, runs: str) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("sensor", "method"):
        table.add_column(name, no_wrap=True)
    for name in ("macro F1", "gain", "accuracy", "kappa", runs):
        table.add_column(name, justify="right", no_wrap=True)
    gains = {(gain.modality, gain.method): gain for gain in scores.gains}
    last = ""
    for row in scores.summary:
        gain = gains.get((row.modality, row.method))
        if last not in ("", row.modality):
            table.add_section()
        table.add_row(
            row.modality if row.modality != last else "",
            row.method if row.protocol == "honest" else f"{row.method} *",
            str(row.f1_macro),
            signed(gain.f1_macro) if gain else "",
            f"{row.accuracy.mean:.3f}",
            f"{row.kappa.mean:.3f}",
            str(row.f1_macro.seeds),
        )
        last = row.modality
    notes = [f"No held-out label, so not scored: {', '.join(scores.absent)}."] if scores.absent else []
    if any(row.protocol == "paper" for row in scores.summary):
        notes.append("* paper protocol: early stopping looked at the scored blocks, which flatters the figures.")
    table.caption = "\n".join(notes) or None
    return table


def signed(spread: Spread) -> str:
    """A difference with its sign."""
    tail = "" if spread.sd is None else f" ± {spread.sd:.3f}"
    return f"{spread.mean:+.3f}{tail}"
