"""A bundle's config in, its model card out: what a person should know before using it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mdico_cube.colearn.bundle_config import BundleConfig
from mdico_cube.markup import Card, Table

_PROTOCOL = {
    "honest": "whatever is chosen is chosen on an inner validation split that is never scored",
    "paper": "early stopping on the scored fold itself, only to compare with published figures: scores are optimistic",
}


def model_card(config: BundleConfig) -> str:
    """Markdown."""
    return "\n\n".join(
        [_head(config), _takes(config), _gives(config), _trained(config), _scores(config), _limits(config)]
    )


def _head(config: BundleConfig) -> str:
    others = ", ".join(m for m in config.colearn.modalities if m != config.modality)
    use = "\n".join(
        (
            "```python",
            "from mdico_cube.colearn.bundle import load_bundle",
            "",
            'model = load_bundle("this/folder").model  # images (B, T, C, H, W), valid (B, T, H, W) -> logits',
            "```",
        )
    )
    return (
        f"# {config.name}\n\nMaps {_what(config)} from **{config.title or config.modality}** alone. "
        f"Trained with the method `{config.method}` together with {others}, which it no longer needs.\n\n{use}"
    )


def _what(config: BundleConfig) -> str:
    kind = config.task.kind
    if kind == "regression":
        return f"the value {config.classes[0].name}"
    return f"{len(config.classes)} {'classes' if kind == 'classes' else 'labels side by side'}"


def _takes(config: BundleConfig) -> str:
    rows = zip(config.bands, config.units, config.stats.mean, config.stats.std, strict=True)
    lines = [f"| {band} | {unit} | {mean:.5g} | {std:.5g} |" for band, unit, mean, std in rows]
    when = f"{len(config.steps)} steps: {', '.join(config.steps)}" if config.temporal else "one step without a date"
    return "\n".join(
        [
            "## What it takes",
            "",
            f"Physical values (variable `{config.variable}`), {when}. Another year fits if its steps start on the same "
            "days. Missing steps are filled in time by the model.",
            "",
            "| band | unit | mean | standard deviation |",
            "|---|---|---|---|",
            *lines,
        ]
    )


def _gives(config: BundleConfig) -> str:
    counts = config.training.class_counts
    lines = [f"| {c.value} | {c.name} | {c.color} | {n} |" for c, n in zip(config.classes, counts, strict=True)]
    return "\n".join(
        ["## What it gives", "", "| value | class | colour | training samples |", "|---|---|---|---|", *lines]
    )


def _trained(config: BundleConfig) -> str:
    t = config.training
    where = "not stated" if config.bbox is None else ", ".join(f"{value:.4f}" for value in config.bbox)
    facts = {
        "samples": t.samples,
        "epochs": f"{t.epochs}, weights of epoch {t.best_epoch + 1}",
        "validation loss": f"{t.val_loss:.4f}",
        **({} if t.val_f1 is None else {"validation macro F1": f"{t.val_f1:.4f}"}),
        **({} if t.val_r2 is None else {"validation R2": f"{t.val_r2:.4f}"}),
        "protocol": f"{config.protocol}: {_PROTOCOL[config.protocol]}",
        "seed": config.seed,
        "seconds": f"{t.seconds:.0f}",
        "encoder": f"{config.encoder.name}, {config.parameters:,} weights",
        "region (west, south, east, north)": where,
        "made": f"{config.created} with " + ", ".join(f"{k} {v}" for k, v in config.versions.items()),
    }
    return "\n".join(["## Training", "", *(f"- {key}: {value}" for key, value in facts.items())])


def _scores(config: BundleConfig) -> str:
    lines = [f"| {name} | {value} |" for name, value in _flat(config.scores)]
    table = ["| score | value |", "|---|---|", *lines] if lines else ["Not evaluated yet."]
    return "\n".join(["## Scores", "", *table])


def _flat(scores: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Single figures by dotted name; lists and texts longer than a line are left to bundle.json."""
    for name, value in scores.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, float):
            yield f"{prefix}{name}", f"{value:.4g}"
        elif isinstance(value, int | str):
            yield f"{prefix}{name}", str(value)


def _limits(config: BundleConfig) -> str:
    return "\n".join(
        [
            "## Limits",
            "",
            "Valid for the region, season, sensor and processing it was trained with. A place or a year with another "
            "climate, other classes or other calibration needs its own evaluation. Labels it learned from have errors "
            f"of their own. {_sure(config)}",
        ]
    )


_WORDS = {
    **{"f1_macro": "macro F1", "f1_weighted": "weighted F1", "recall_macro": "macro recall", "kappa": "Cohen's kappa"},
    **{"pixels": "pixels scored", "r2": "R2", "rmse": "RMSE", "rrmse": "RMSE / mean", "mae": "MAE"},
}
"""Score -> what a notebook calls it."""


def notebook_card(config: BundleConfig, folder: str) -> Card:
    """What a notebook shows of a bundle.

    Args:
        config: what the model is.
        folder: where it lies.
    """
    training, steps = config.training, [step for step in config.steps if step]
    bands = zip(config.bands, config.units, config.stats.mean, config.stats.std, strict=True)
    scores = [
        (_WORDS.get(name, name.replace("_", " ")), f"{value:,}" if value == int(value) else f"{value:.3g}")
        for name, value in config.scores.items()
        if isinstance(value, int | float)
    ]
    return Card(
        title=f"{config.title or config.modality} alone, {config.method}",
        kind="mdico bundle",
        facts=[
            ("trained with", ", ".join(config.colearn.modalities)),
            ("seed", config.seed),
            ("network", f"{config.encoder.name}, {config.parameters:,} weights"),
            ("time steps", f"{len(steps)}, {steps[0]} to {steps[-1]}" if steps else "none"),
            ("training", f"{training.samples:,} windows, best epoch {training.best_epoch + 1} of {training.epochs}"),
            ("predicts", _what(config)),
            *([] if training.val_f1 is None else [("macro F1 on validation", f"{training.val_f1:.3f}")]),
            *scores,
            ("digest", config.digest[:12]),
            ("where", folder),
        ],
        tables=[Table(("band", "unit", "mean", "sd"), [(n, u, f"{m:.4g}", f"{d:.4g}") for n, u, m, d in bands])],
        legend=[(each.name, each.color) for each in config.classes],
    )


def _sure(config: BundleConfig) -> str:
    if config.temperature == 1.0 and "calibration" in config.scores:
        return (
            "Its confidence stands as trained: no temperature fitted on some validation blocks lowered the error on "
            "the others beyond doubt."
        )
    if config.temperature == 1.0:
        return "Its confidence is not calibrated."
    return (
        f"Its confidence was calibrated on the validation windows (temperature {config.temperature:.3g}, already in "
        "the weights); elsewhere it is as good as they resemble that place."
    )
