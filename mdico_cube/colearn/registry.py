"""A method's name in, its class out. One line here adds another."""

from __future__ import annotations

from mdico_cube.colearn.comiss import CoMiss
from mdico_cube.colearn.discom import DisCoMKD
from mdico_cube.colearn.dsensd import DSensD, DSensDPlus
from mdico_cube.colearn.fcom import FCoMAverage
from mdico_cube.colearn.fullco import FullCo
from mdico_cube.colearn.fusion import AverageFusion, ConcatFusion, DecisionFusion, GatedFusion, InputFusion
from mdico_cube.colearn.independent import Independent
from mdico_cube.colearn.mdico import MDiCo
from mdico_cube.colearn.method import CoLearner
from mdico_cube.colearn.plus import MDiCoPlus
from mdico_cube.colearn.timmil import TiMMILLike
from mdico_cube.errors import look_up

METHODS: dict[str, type[CoLearner]] = {
    "independent": Independent,
    "fusion-input": InputFusion,
    "fusion-concat": ConcatFusion,
    "fusion-average": AverageFusion,
    "fusion-gated": GatedFusion,
    "fusion-decision": DecisionFusion,
    "dsensd": DSensD,
    "dsensd-plus": DSensDPlus,
    "fcom-av": FCoMAverage,
    "timmil-like": TiMMILLike,
    "discom-kd": DisCoMKD,
    "mdico": MDiCo,
    "fullco": FullCo,
    "comiss": CoMiss,
    "mdico-plus": MDiCoPlus,
}


def get_method(name: str) -> type[CoLearner]:
    """The class of a method.

    Raises:
        MdicoError: no method of that name; the text gives the closest one.
    """
    return look_up("method", name, METHODS)
