"""The sections of `params.yaml` on data and training, typed: what each setting may be."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from fer_lib.labels import EMOTIONS_8, normalise_emotion

Fraction = Field(ge=0.0, lt=1.0)


class Section(BaseModel):
    """Base of all sections: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PrepareParams(Section):
    """How raw faces are packed."""

    size: int = Field(ge=16, le=512)
    channels: Literal[1, 3]
    n_classes: Literal[7, 8]
    val_fraction: float = Fraction
    test_fraction: float = Fraction
    n_faces: int = Field(ge=0)
    skip_bad: bool
    classes: dict[str, str | None]
    seed: int = Field(ge=0)

    @field_validator("classes", mode="before")
    @classmethod
    def _name_classes(cls, classes: Any) -> Any:
        """Take the names of emotions in any spelling, and numbers for folders: YAML reads `1` as one."""
        if not isinstance(classes, dict):
            return classes
        try:
            return {
                str(name): emotion and normalise_emotion(str(emotion)) for name, emotion in classes.items()
            }
        except KeyError as error:
            raise ValueError(
                f"expected one of {', '.join(EMOTIONS_8)} or null, found {error}; correct it"
            ) from None


class DataAuditParams(Section):
    """Thresholds of the data audit."""

    near_duplicate_correlation: float = Field(gt=0.5, lt=1.0)
    blank_std: float = Field(ge=0.0)
    mean_face_similarity: float = Field(ge=-1.0, le=1.0)
    min_faces_per_mean: int = Field(ge=2)
    n_resamples: int = Field(ge=10)
    seed: int = Field(ge=0)


class AugmentationParams(Section):
    """Ranges of the random transforms; 0 turns one off."""

    rotation_degrees: float = Field(ge=0.0, le=180.0)
    scale: float = Fraction
    shift: float = Fraction
    aspect: float = Fraction
    flip_probability: float = Field(ge=0.0, le=1.0)
    brightness: float = Fraction
    contrast: float = Fraction
    gamma: float = Field(ge=0.0, le=4.0)
    lighting: float = Field(ge=0.0, le=0.2)  # as far as albumentations goes
    downscale: float = Fraction
    erasing_probability: float = Field(ge=0.0, le=1.0)
    seed: int = Field(ge=0)


class TargetShares(Section):
    """What a face is trained towards: a mixture of four distributions over the emotions."""

    label: float = Field(default=0.0, ge=0.0, le=1.0)  # one-hot, the data set's own
    majority: float = Field(default=0.0, ge=0.0, le=1.0)  # one-hot, the emotion with most votes (FER+)
    votes: float = Field(default=0.0, ge=0.0, le=1.0)  # the share of votes for each emotion (FER+)
    teacher: float = Field(default=0.0, ge=0.0, le=1.0)  # the mean of the teachers' probabilities

    @property
    def are_votes_alone(self) -> bool:
        """Whether the annotators teach, and the labels do not."""
        return not self.label and bool(self.majority or self.votes)

    @model_validator(mode="after")
    def _check_sum(self) -> "TargetShares":
        total = self.label + self.majority + self.votes + self.teacher
        if abs(total - 1) > 1e-6:
            raise ValueError(f"expected shares that sum to 1, found {total:g}")
        return self


class TrainingParams(Section):
    """The training recipe."""

    architecture: str
    weights: Literal["package", "hub", "file", "none"]
    weights_file: Path | None
    head: Literal["flat", "hierarchical"]
    head_epochs: int = Field(ge=0)
    image_size: int = Field(ge=32, le=512)
    first_image_size: int | None = Field(ge=32, le=512)
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=2)
    lr: float = Field(gt=0.0)
    layer_decay: float = Field(gt=0.0, le=1.0)
    schedule: Literal["constant", "cosine"]
    warmup_steps: int = Field(ge=0)
    weight_decay: float = Field(ge=0.0)
    dropout: float = Fraction
    targets: TargetShares
    teachers: tuple[Path, ...]
    macs: float = Field(gt=0.0, le=1.0)
    loss: str  # a name in training.optim.LOSSES, which is checked when a training starts
    focal_gamma: float = Field(ge=0.0)
    label_smoothing: float = Fraction
    mixup: float = Field(ge=0.0)
    drop_duplicates: bool
    train_fraction: float = Field(gt=0.0, le=1.0)
    sampler: Literal["weighted", "shuffle"]
    balance: str | None
    ema_decay: float = Fraction
    patience: int = Field(ge=1)
    precision: Literal["auto", "float32", "bfloat16"]
    seed: int = Field(ge=0)


class EnsembleParams(Section):
    """Which recipes' soft vote teaches the student."""

    members: tuple[str, ...] = Field(min_length=1)


class Changes(Section):
    """What one training changes of the sections `training` and `augmentation`."""

    training: dict[str, Any] = {}
    augmentation: dict[str, Any] = {}


class Recipe(Changes):
    """A training of its own.

    start: the recipe (or `baseline`) whose trained body it starts from.   teachers: whose probabilities have
    the share `targets.teacher`: recipes (or `baseline`), or `ensemble`, the vote of `ensemble.members`.
    """

    start: str | None = None
    teachers: tuple[str, ...] = ()


class FinetuningParams(Changes):
    """How a network is fine-tuned on a user's own faces.

    folds: parts of the faces; one is for test, one for validation.
    """

    folds: int = Field(ge=3)
    n_resamples: int = Field(ge=10)
    seed: int = Field(ge=0)
