"""A bundle's config in, its STAC item with the machine learning model extension out: plain JSON."""

from __future__ import annotations

import re
from typing import Any

from mdico_cube.colearn.bundle_config import BundleConfig
from mdico_cube.spec import LabelClass

MLM = "https://stac-extensions.github.io/mlm/v1.4.0/schema.json"
_TITLES = {
    **{"tempcnn": "TempCNN", "ltae": "L-TAE", "tae": "TAE", "transformer": "Transformer", "convtran": "ConvTran"},
    **{"gru": "GRU", "lstm": "LSTM", "mlp": "MLP", "resnet": "ResNet", "unet": "U-Net"},
}
"""Encoder -> what people call it."""
_TASK = {"classes": "semantic-segmentation", "multilabel": "classification", "regression": "regression"}
_GIVES = {"classes": "Land-cover classes", "multilabel": "Labels side by side", "regression": "A value"}
_MEANS = {
    "classes": "One logit per class; the position of the largest gives the class.",
    "multilabel": "One logit per label; the label is there where it is above 0.",
    "regression": "The z-score of the value: times {std}, plus {mean}.",
}
_DIMENSIONS = ["batch", "time", "bands", "height", "width"]


def model_item(config: BundleConfig, weights_bytes: int) -> dict[str, Any]:
    """The STAC 1.1 item of a bundle; hrefs are relative to its folder.

    Args:
        config: of the bundle.
        weights_bytes: size of the weights file.
    """
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [MLM],
        "id": config.name,
        "geometry": None,
        "properties": {**_when(config), **_model(config, weights_bytes)},
        "links": [],
        "assets": _assets(config),
    }
    if config.bbox is not None:
        west, south, east, north = config.bbox
        ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
        item |= {"bbox": list(config.bbox), "geometry": {"type": "Polygon", "coordinates": [ring]}}
    return item


def _when(config: BundleConfig) -> dict[str, Any]:
    when = {"datetime": config.created, "created": config.created}
    if config.temporal:
        when["start_datetime"] = f"{config.steps[0]}T00:00:00Z"
        when["end_datetime"] = f"{config.steps[-1]}T00:00:00Z"
    return when


def _model(config: BundleConfig, weights_bytes: int) -> dict[str, Any]:
    encoder = config.encoder
    return {
        "title": f"{config.method} for {config.title or config.modality}",
        "description": f"{_GIVES[config.task.kind]} from {config.modality} alone, trained together with "
        f"{', '.join(m for m in config.colearn.modalities if m != config.modality)}.",
        "bands": _bands(config),
        "mlm:name": config.name,
        "mlm:architecture": _TITLES.get(encoder.name, encoder.name),
        "mlm:tasks": [_TASK[config.task.kind]],
        "mlm:framework": "PyTorch",
        "mlm:framework_version": config.versions["torch"],
        "mlm:total_parameters": config.parameters,
        "mlm:memory_size": weights_bytes,
        "mlm:pretrained": False,
        "mlm:pretrained_source": None,
        "mlm:input": [_input(config)],
        "mlm:output": [_output(config)],
        "mlm:hyperparameters": {
            "method": config.method,
            "seed": config.seed,
            "protocol": config.protocol,
            **{f"encoder.{key}": value for key, value in encoder.model_dump(mode="json").items()},
            **{f"train.{key}": value for key, value in config.colearn.train.model_dump(mode="json").items()},
        },
    }


def _bands(config: BundleConfig) -> list[dict[str, Any]]:
    """STAC wants them on the asset before they may stand in the properties, where the extension looks for them."""
    return [{"name": name, "unit": unit} for name, unit in zip(config.bands, config.units, strict=True)]


def _input(config: BundleConfig) -> dict[str, Any]:
    stats = zip(config.stats.mean, config.stats.std, strict=True)
    return {
        "name": config.modality,
        "description": "Physical values with a mask of observed steps; the model's first layer normalises them and "
        "fills missing steps in time.",
        "bands": list(config.bands),
        "input": {
            "shape": [-1, len(config.steps), len(config.bands), -1, -1],
            "dim_order": _DIMENSIONS,
            "data_type": "float32",
        },
        "value_scaling": [{"type": "z-score", "mean": mean, "stddev": std} for mean, std in stats],
        "resize_type": None,
        "pre_processing_function": None,
    }


def _output(config: BundleConfig) -> dict[str, Any]:
    return {
        "name": "logits",
        "description": _MEANS[config.task.kind].format(mean=config.scale.mean, std=config.scale.std),
        "tasks": [_TASK[config.task.kind]],
        "result": {
            "shape": [-1, len(config.classes), -1, -1],
            "dim_order": ["batch", "class", "height", "width"],
            "data_type": "float32",
        },
        "classification:classes": [stac_class(c) for c in config.classes],
        "post_processing_function": None,
    }


def stac_class(label: LabelClass) -> dict[str, Any]:
    """A class as the classification extension writes it."""
    return {
        "value": label.value,
        "name": re.sub(r"[^0-9A-Za-z_-]+", "-", label.name).strip("-") or f"class-{label.value}",
        "title": label.name,
        "description": label.name,
        "color_hint": label.color.removeprefix("#").upper(),
    }


def _assets(config: BundleConfig) -> dict[str, Any]:
    return {
        "model": {
            "href": "./weights.safetensors",
            "type": "application/octet-stream; framework=pytorch",
            "title": "Weights as safetensors",
            "roles": ["mlm:model", "mlm:weights"],
            "mlm:artifact_type": "safetensors",
            "bands": _bands(config),
        },
        "config": {
            "href": "./bundle.json",
            "type": "application/json",
            "title": "Everything needed to build the model",
            "roles": ["metadata"],
        },
        "card": {"href": "./README.md", "type": "text/markdown", "title": "Model card", "roles": ["metadata"]},
    }
