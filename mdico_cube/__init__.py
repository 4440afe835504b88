"""mdico_cube: train with every sensor, map with any one."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "load_recipe": "mdico_cube.recipe",
    "parse_recipe": "mdico_cube.recipe",
    "MdicoError": "mdico_cube.errors",
    "open_cube": "mdico_cube.accessor",
    "open_reader": "mdico_cube.cube.reader",
    "inspect_cube": "mdico_cube.cube.inspect",
    "stale_shards": "mdico_cube.cube.stale",
    "tune_layout": "mdico_cube.cube.tune",
    "export": "mdico_cube.maps.export",
    "export_step": "mdico_cube.maps.export",
    "ledger_picture": "mdico_cube.maps.ledger_picture",
    "check_catalog": "mdico_cube.cube.check",
    "list_catalogs": "mdico_cube.cube.check",
    "open_samples": "mdico_cube.patches.samples",
    "open_index": "mdico_cube.patches.index",
    "index_summary": "mdico_cube.patches.draw",
    "contact_sheet": "mdico_cube.maps.contact",
    "export_samples": "mdico_cube.patches.export",
    "examine": "mdico_cube.doctor",
    "load_bundle": "mdico_cube.colearn.bundle",
    "predict_map": "mdico_cube.maps.predict",
    "write_map": "mdico_cube.maps.write",
    "map_status": "mdico_cube.maps.mapstore",
    "write_poster": "mdico_cube.maps.gallery",
    "write_polygons": "mdico_cube.maps.polygons",
    "explore": "mdico_cube.explorer.serve",
    "explorer_app": "mdico_cube.explorer.serve",
    "scores_table": "mdico_cube.maps.scores",
    "METHODS": "mdico_cube.colearn.registry",
    "benchmark": "mdico_cube.benchmarks.registry",
    "BenchmarkPlan": "mdico_cube.benchmarks.run",
    "benchmark_table": "mdico_cube.benchmarks.table",
    "study": "mdico_cube.benchmarks.study",
    "StudyPlan": "mdico_cube.benchmarks.study",
    "study_table": "mdico_cube.benchmarks.study_table",
    "ablation": "mdico_cube.benchmarks.variants",
    "analysis_table": "mdico_cube.maps.analyse",
    "DemoRegion": "mdico_cube.demo.region",
    "write_region": "mdico_cube.demo.region",
    "plan": "mdico_cube.journey.cubes",
    "foresee": "mdico_cube.journey.cubes",
    "foresee_maps": "mdico_cube.journey.mapping",
    "refresh": "mdico_cube.journey.cubes",
    "scenes": "mdico_cube.journey.cubes",
    "build": "mdico_cube.journey.cubes",
    "index_samples": "mdico_cube.journey.windows",
    "sample": "mdico_cube.journey.windows",
    "train": "mdico_cube.journey.training",
    "tune": "mdico_cube.journey.tuning",
    "predict": "mdico_cube.journey.mapping",
    "quantize": "mdico_cube.journey.mapping",
    "evaluate": "mdico_cube.journey.mapping",
    "analyse": "mdico_cube.journey.analysis",
    "report": "mdico_cube.journey.mapping",
    "run": "mdico_cube.journey.whole",
    "run_folds": "mdico_cube.journey.folds",
    "prepare_demo": "mdico_cube.journey.demo",
    "pipeline_folder": "mdico_cube.journey.demo",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    """Hand a public name on from its home, which is imported only now."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'mdico_cube' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
