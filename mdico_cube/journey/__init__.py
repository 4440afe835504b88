"""A recipe in, every stage of a run out: plan, build, sample, train, predict, evaluate, report."""

from mdico_cube.journey.analysis import analyse
from mdico_cube.journey.cubes import build, foresee, plan, refresh, scenes
from mdico_cube.journey.demo import pipeline_folder, prepare_demo
from mdico_cube.journey.folds import FoldScores, run_folds
from mdico_cube.journey.mapping import evaluate, foresee_maps, predict, quantize, report
from mdico_cube.journey.places import Places
from mdico_cube.journey.training import train
from mdico_cube.journey.tuning import tune
from mdico_cube.journey.whole import run
from mdico_cube.journey.windows import index_samples, sample

__all__ = [
    "FoldScores",
    "Places",
    "analyse",
    "build",
    "evaluate",
    "foresee",
    "foresee_maps",
    "index_samples",
    "pipeline_folder",
    "plan",
    "predict",
    "prepare_demo",
    "quantize",
    "refresh",
    "report",
    "run",
    "run_folds",
    "sample",
    "scenes",
    "train",
    "tune",
]
