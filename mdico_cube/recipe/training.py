"""Methods, encoders and the training schedule, as a recipe says it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from mdico_cube.recipe.samples import AugmentSection
from mdico_cube.recipe.section import Section, no_twice

Precision = Annotated[
    Literal["32-true", "bf16", "fp16", "int8"], BeforeValidator(lambda value: "32-true" if value == "fp32" else value)
]
"""Arithmetic of a model that maps; fp32 is another name of 32-true."""
PRETRAINED = ("anysat", "galileo")
"""Encoders that take weights from a file."""
Engine = Literal["torch", "compile", "onnx", "openvino"]
"""What computes a model that maps."""


class EncoderSection(Section):
    """The network that turns a series into an embedding."""

    name: str = "tempcnn"
    """Of single pixels' series: tempcnn, ltae, tae, transformer, convtran, gru, lstm, mlp; of patches, looking beyond
    the pixel: resnet, unet, and timm:NAME for any convolutional backbone of timm (random weights); pretrained ones of
    single pixels' series, from a file of weights: galileo, anysat. A name that is not known is refused before anything
    is read."""
    weights: Path | None = None
    """Checkpoint of a pretrained encoder (galileo, anysat): safetensors, or a torch file of tensors; relative to the
    recipe. A bundle holds the weights itself and does not need the file again."""
    size: str | None = None
    """Of a pretrained checkpoint: galileo nano (default), tiny or base; anysat base (default), small or tiny."""
    frozen: bool = True
    """A pretrained encoder keeps its weights, and one Linear to the embedding learns; false learns all of it on."""
    width: Annotated[int, Field(ge=2, multiple_of=2)] = 128
    """Embedding width d."""
    hidden: Annotated[int, Field(ge=1)] = 128
    """Channels of each convolution, of attention and of recurrent cells."""
    dense: Annotated[int, Field(ge=1)] = 512
    """Width of the dense layer before the embedding."""
    layers: Annotated[int, Field(ge=1, le=8)] = 2
    """How deep: dense layers (mlp), attention layers (transformer), residual blocks (resnet), times down by two
    (unet), floors of features (timm:NAME)."""
    pool: Annotated[int, Field(ge=1)] = 1
    """Side in pixels of the square around each pixel whose observed embeddings are averaged: the patch, to learn one
    label for a whole patch (samples.target: patch sets it)."""
    kernel: Annotated[int, Field(ge=1)] = 5
    """Length of each convolution in time steps; odd."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of activations dropped in training."""
    heads: Annotated[int, Field(ge=1)] = 8
    """Attention heads (ltae, tae, transformer, convtran, resnet, unet)."""

    @model_validator(mode="after")
    def _weights_fit(self) -> Self:
        if self.name not in PRETRAINED and (self.weights is not None or self.size is not None):
            raise ValueError(f"weights and size go with {' and '.join(PRETRAINED)}, not {self.name}: leave them out")
        return self


class MDiCoSection(Section):
    """Options of MDiCo (Mena et al., Machine Learning 114, 2025)."""

    discriminate: Literal["unused", "shared"] = "unused"
    """What the second modality head reads: "unused" = the paper's figure, "shared" = the public code."""
    contrastive_reduction: Literal["sum", "mean"] = "mean"
    """"sum" over ordered pairs as in the paper, or the mean scaled so that two modalities equal the paper."""
    temperature: Annotated[float, Field(gt=0)] = 0.1
    """NT-Xent temperature."""
    main: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the loss of the class answer; 0 switches it off."""
    auxiliary: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the loss of the answers from the shared and the specific space; 0 switches it off."""
    modality: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the loss of the modality discriminators; 0 switches it off."""
    contrastive: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the contrastive loss between the modalities' shared spaces; 0 switches it off."""
    contrast_pixels: Annotated[int, Field(ge=2)] = 1024
    """At most this many pixels of a batch enter the contrastive loss (patches have B x H x W of them)."""


class FullCoSection(Section):
    """Options of FullCo and Co-Miss (poster, Mena et al. 2025)."""

    contrastive: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the contrastive loss between the modalities' shared spaces; 0 switches it off."""
    modality: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the loss of the modality discriminator; 0 switches it off."""
    collaboration: Annotated[float, Field(ge=0)] = 1.0
    """Weight of what the modalities teach each other; 0 switches it off."""
    temperature: Annotated[float, Field(gt=0)] = 0.5
    """Of the distillation."""
    contrast_temperature: Annotated[float, Field(gt=0)] = 0.1
    """Of NT-Xent."""
    contrast_pixels: Annotated[int, Field(ge=2)] = 1024
    """At most this many pixels of a batch enter the contrastive loss."""


class DSensDSection(Section):
    """Options of DSensD+ (Mena et al., IEEE Access 2025)."""

    distillation: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the distillation; 0 switches it off."""
    temperature: Annotated[float, Field(gt=0)] = 0.5
    """Of the distillation."""


class TiMMILSection(Section):
    """Options of the TiMMIL-like transformer."""

    heads: Annotated[int, Field(ge=1)] = 8
    """Attention heads; the encoder's width must be a multiple."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.4
    """Share of activations dropped in training."""


class DisCoMSection(Section):
    """Options of DisCoM-KD (Ienco and Dantas, BMVC 2024)."""

    adversarial: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the adversary that must not tell the modalities apart by their shared space."""
    orthogonal: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the overlap between the spaces."""


class PlusSection(Section):
    """Options of MDiCo-plus."""

    distillation: Annotated[float, Field(ge=0)] = 1.0
    """Weight of what a sensor learns from all of them together; 0 leaves the independent baseline."""
    temperature: Annotated[float, Field(gt=0)] = 2.0
    """Of the distillation."""
    unlabelled: Annotated[float, Field(ge=0)] = 3.0
    """Unlabelled windows for each labelled one in a training batch, where samples.unlabelled gives any; 0 uses none."""
    fused: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the head that reads every sensor's embedding and speaks among the teachers; 0 leaves it out."""
    teacher: Literal["all", "own"] = "all"
    """Who teaches a sensor: all of them together, or only itself (to measure what the others bring)."""


class TrainSection(Section):
    """The training loop."""

    epochs: Annotated[int, Field(ge=1)] = 30
    """Passes over the training windows, at most."""
    batch: Annotated[int, Field(ge=2)] = 128
    """Labelled windows of a training step, at most."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    """Adam's step size; the peak of the one-cycle schedule."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Adam's, per step and step size; 0 = none."""
    schedule: Literal["constant", "onecycle", "cosine", "step"] = "onecycle"
    """One cycle of the step size (Smith and Topin, 2019), a constant one as in the methods' papers, a half cosine down
    to 0, or a tenth of it after half and again after three quarters of the epochs."""
    warmup: Annotated[int, Field(ge=0)] = 0
    """Epochs in which the step size grows from 0 (not with onecycle, which has its own)."""
    patience: Annotated[int, Field(ge=1)] = 5
    """Epochs without a better validation loss before training stops."""
    min_delta: Annotated[float, Field(ge=0)] = 0.01
    """What counts as better."""
    keep: Literal["best", "last"] = "last"
    """"last" runs every epoch and keeps the last one's weights, as suits the one-cycle schedule; "best" stops early and
    keeps the epoch with the lowest validation loss, as in the methods' papers."""
    average: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay per step of an exponential moving average of the weights, such as 0.99; the average is validated, kept and
    exported. 0 = none."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Arithmetic of training: 32 bits, or mixed with 16 where the hardware has them."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """auto takes a GPU where there is one."""
    devices: Annotated[int, Field(ge=1)] = 1
    """GPUs, or processes of the accelerator cpu, that share the batches of an epoch among them: each takes `batch`
    windows at a time, and their gradients are averaged."""
    strategy: str = "auto"
    """How several devices work together: auto or ddp = distributed data parallel in forked processes; with
    ddp_spawn_find_unused_parameters_true they start anew."""
    loggers: tuple[Literal["csv", "tensorboard", "mlflow"], ...] = ("csv",)
    """csv and tensorboard write into the run's folder; mlflow to MLFLOW_TRACKING_URI, or into mlflow.db there."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.warmup and self.schedule == "onecycle":
            raise ValueError("warmup goes with constant, cosine or step; onecycle grows by itself: leave it out")
        return self


class TaskSection(Section):
    """What is learned of the labels."""

    kind: Literal["classes", "multilabel", "regression"] = "classes"
    """classes = one of two or more (two are a binary task); multilabel = any number of labels side by side; regression
    = a value."""
    weights: Literal["auto", "balanced", "sqrt", "none"] = "auto"
    """balanced weighs classes and labels by how rare they are among the training samples; auto balances classes and
    leaves labels side by side as they are, as in the methods' papers; sqrt takes the square roots of the balanced
    weights, for more pixels right at about the same mean over classes; none weighs all the same."""
    share: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Multilabel: targets are maps of classes, and a class is a label of a patch where more than this share of its
    labelled pixels carry it, such as 0.07; null = targets are sets of labels already."""
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Label smoothing epsilon (classes and multilabel)."""
    unit: str = ""
    """Unit of the value (regression); a recipe takes it from labels.values."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.kind == "regression" and (self.smoothing or self.weights in ("balanced", "sqrt")):
            raise ValueError("a regression has neither class weights nor label smoothing: leave them out")
        if self.unit and self.kind != "regression":
            raise ValueError("a unit goes with kind regression: leave it out")
        return self


class ColearnSection(Section):
    """Which methods learn from which modalities."""

    modalities: tuple[str, ...]
    """At least two: each is trained with the others and then predicts alone."""
    methods: Annotated[tuple[str, ...], Field(min_length=1)] = ("independent", "mdico")
    """Trained one after the other; `mdico methods` lists them."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0,)
    """Every method is trained once with each."""
    protocol: Literal["honest", "paper"] = "honest"
    """"honest" stops early on an inner validation split; "paper" on the scored fold, only to compare with
    published figures."""
    task: TaskSection = TaskSection()
    calibrate: bool = True
    """Scale every exported model's logits by one number, so that its confidence tells how often it is right on the
    validation windows (temperature scaling; classes stay the same). Under the protocol "paper" nothing is scaled."""
    encoder: EncoderSection = EncoderSection()
    mdico: MDiCoSection = MDiCoSection()
    fullco: FullCoSection = FullCoSection()
    dsensd: DSensDSection = DSensDSection()
    timmil: TiMMILSection = TiMMILSection()
    discom: DisCoMSection = DisCoMSection()
    plus: PlusSection = PlusSection()
    train: TrainSection = TrainSection()
    augment: AugmentSection = AugmentSection()

    @field_validator("methods", "seeds")
    @classmethod
    def _each_once(cls, value: tuple[object, ...]) -> tuple[object, ...]:
        no_twice(value)
        return value

    @field_validator("modalities")
    @classmethod
    def _two(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < 2:
            raise ValueError(
                f"co-learning needs at least two different modalities, came {list(value)}: "
                "add another modality of the cube"
            )
        no_twice(value)
        return value
