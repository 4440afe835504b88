"""One YAML recipe in, one frozen Recipe out: every choice of a run, checked before anything is read."""

from mdico_cube.recipe.area import Area, PeriodSection
from mdico_cube.recipe.load import load_recipe, parse_recipe
from mdico_cube.recipe.maps import TOGETHER, MapOptions, MapOutput, MapSection
from mdico_cube.recipe.samples import (
    AugmentSection,
    Backend,
    ClassSection,
    LabelSection,
    LoaderSection,
    PlaceSection,
    SampleSection,
    SplitBy,
)
from mdico_cube.recipe.section import Section
from mdico_cube.recipe.sources import (
    ORBIT,
    FallbackSection,
    ModalitySection,
    ReadSection,
    Reducer,
    Source,
    SourceOverride,
    StoreRules,
    StoreVariable,
    WeatherKind,
)
from mdico_cube.recipe.store import ClusterSection, StoreSection
from mdico_cube.recipe.training import (
    ColearnSection,
    DisCoMSection,
    DSensDSection,
    EncoderSection,
    Engine,
    FullCoSection,
    MDiCoSection,
    PlusSection,
    Precision,
    TaskSection,
    TiMMILSection,
    TrainSection,
)
from mdico_cube.recipe.whole import Recipe

__all__ = [
    "ORBIT",
    "TOGETHER",
    "Area",
    "AugmentSection",
    "Backend",
    "ClassSection",
    "ClusterSection",
    "ColearnSection",
    "DSensDSection",
    "DisCoMSection",
    "EncoderSection",
    "Engine",
    "FallbackSection",
    "FullCoSection",
    "LabelSection",
    "LoaderSection",
    "MDiCoSection",
    "MapOptions",
    "MapOutput",
    "MapSection",
    "ModalitySection",
    "PeriodSection",
    "PlaceSection",
    "PlusSection",
    "Precision",
    "ReadSection",
    "Recipe",
    "Reducer",
    "SampleSection",
    "Section",
    "Source",
    "SourceOverride",
    "SplitBy",
    "StoreRules",
    "StoreSection",
    "StoreVariable",
    "TaskSection",
    "TiMMILSection",
    "TrainSection",
    "WeatherKind",
    "load_recipe",
    "parse_recipe",
]
