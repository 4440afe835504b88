"""Figures of maps of labels or of a value in, their summary, gains and table out; as `scores` does it for classes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

from rich.box import SIMPLE_HEAD
from rich.table import Table

from mdico_cube.maps.scores import BASELINE, ClassScores, Spread, grouped, signed, spread
from mdico_cube.spec import LabelClass

FIGURES = {
    "multilabel": {"f1_macro": "macro F1", "f1_micro": "micro F1", "accuracy": "accuracy", "exact": "all labels right"},
    "regression": {"r2": "R2", "rmse": "RMSE", "rrmse": "rRMSE", "mae": "MAE", "bias": "bias"},
}
"""Task -> its figures, the one that decides first, and what people call them."""


@dataclass(frozen=True, slots=True)
class MapFigures:
    """One map of labels or of a value against the held-out truth."""

    method: str
    modality: str
    sensor: str
    """What a person calls the modality."""
    seed: int
    protocol: str
    figures: dict[str, float]
    """See FIGURES; RMSE, MAE and bias in the value's unit."""
    unpredicted: float
    """Share of held-out pixels without a prediction: they have no part in the figures of a value; their labels count
    as absent."""
    pixels: int
    """Held-out pixels whose truth is known."""
    labels: tuple[ClassScores, ...] = ()
    """Each label by itself."""
    counts: tuple[tuple[int, ...], ...] = ()
    """Of a value, pixels by [bin of the prediction][bin of the truth] over `limits`."""
    limits: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class FigureSummary:
    """One method and modality over its seeds."""

    method: str
    modality: str
    sensor: str
    protocol: str
    figures: dict[str, Spread]


@dataclass(frozen=True, slots=True)
class FigureGain:
    """A method minus the independent baseline for one modality, seed by seed, in the figure that decides."""

    method: str
    modality: str
    sensor: str
    figure: str
    """What people call it."""
    change: Spread
    wins: int
    """Seeds in which the method is better."""


@dataclass(frozen=True, slots=True)
class TaskScores:
    """Every map of a run on its held-out blocks."""

    task: str
    """"multilabel" or "regression"."""
    classes: tuple[LabelClass, ...]
    """The labels, or the one value."""
    maps: tuple[MapFigures, ...]

    @property
    def names(self) -> dict[str, str]:
        """Figures and what people call them."""
        return FIGURES[self.task]

    @property
    def absent(self) -> tuple[str, ...]:
        """Labels that no held-out pixel has: they take no part in the mean over labels."""
        support = [sum(item.labels[k].support for item in self.maps if item.labels) for k in range(len(self.classes))]
        return tuple(c.name for c, n in zip(self.classes, support, strict=True) if n == 0 and self.task == "multilabel")

    @property
    def summary(self) -> tuple[FigureSummary, ...]:
        """Mean and spread over seeds, in the order in which modality and method first occur."""
        found = []
        for (modality, method, protocol), maps in grouped(self.maps).items():
            figures = {name: spread([one.figures[name] for one in maps]) for name in self.names}
            found.append(FigureSummary(method, modality, maps[0].sensor, protocol, figures))
        return tuple(found)

    @property
    def gains(self) -> tuple[FigureGain, ...]:
        """Every other method against the independent one, per modality; only seeds that both have."""
        groups, (key, title) = grouped(self.maps), next(iter(self.names.items()))
        found = []
        for (modality, method, protocol), maps in groups.items():
            base = {one.seed: one for one in groups.get((modality, BASELINE, protocol), [])}
            change = [one.figures[key] - base[one.seed].figures[key] for one in maps if one.seed in base]
            if method != BASELINE and change:
                wins = sum(value > 0 for value in change)
                found.append(FigureGain(method, modality, maps[0].sensor, title, spread(change), wins))
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready data; summary and gains are written for readers and computed again when read."""
        return {
            "version": 1,
            "task": self.task,
            "classes": [asdict(item) for item in self.classes],
            "summary": [asdict(item) for item in self.summary],
            "gains": [asdict(item) for item in self.gains],
            "maps": [asdict(item) for item in self.maps],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of to_dict."""
        maps = tuple(
            MapFigures(
                **{
                    **item,
                    "labels": tuple(ClassScores(**entry) for entry in item["labels"]),
                    "counts": tuple(tuple(row) for row in item["counts"]),
                    "limits": None if item["limits"] is None else tuple(item["limits"]),
                }
            )
            for item in data["maps"]
        )
        return cls(data["task"], tuple(LabelClass(**item) for item in data["classes"]), maps)

    def table(self, title: str = "Held-out scores of maps", runs: str = "seeds") -> Table:
        """The summary for a terminal: one line per sensor and method, with the gain over the independent baseline."""
        found = Table(title=title, title_justify="left", caption_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for name in ("sensor", "method"):
            found.add_column(name, no_wrap=True)
        first, *others = self.names.values()
        for name in (first, "gain", *others, runs):
            found.add_column(name, justify="right", no_wrap=True)
        gains = {(gain.modality, gain.method): gain for gain in self.gains}
        for row in self.summary:
            main, *rest = row.figures.values()
            gain = gains.get((row.modality, row.method))
            method = row.method if row.protocol == "honest" else f"{row.method} *"
            told = [f"{value.mean:.3f}" for value in rest]
            found.add_row(row.modality, method, str(main), signed(gain.change) if gain else "", *told, str(main.seeds))
        notes = [f"No held-out pixel has it, so not scored: {', '.join(self.absent)}."] if self.absent else []
        if any(row.protocol == "paper" for row in self.summary):
            notes.append("* paper protocol: early stopping looked at the scored blocks, which flatters the figures.")
        found.caption = "\n".join(notes) or None
        return found
