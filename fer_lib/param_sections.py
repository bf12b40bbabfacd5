"""The sections of `params.yaml`, typed: what each setting may be."""

from pathlib import Path
from typing import Any, Literal, NamedTuple

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


class EvaluationParams(Section):
    """Which networks are scored, and how."""

    networks: tuple[str, ...] = Field(min_length=1)
    read_back: tuple[str, ...] = ()  # those of which only the released int8 weights are left
    batch_size: int = Field(ge=1)
    n_resamples: int = Field(ge=10)
    seed: int = Field(ge=0)


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


class AcceptanceCriteria(Section):
    """What int8 must bring to be accepted: shares, and how many times as fast on the most threads."""

    loss: float = Field(ge=0.0)
    size: float = Field(gt=0.0)
    speedup: float = Field(gt=0.0)
    speedup_of_32: float = Field(gt=0.0)


class DeviceLimits(Section):
    """What a device has room and time for; null: no limit. Milliseconds are for one face on one thread."""

    megabytes: float | None = None
    milliseconds: float | None = None


class CompressionParams(Section):
    """How networks are made small, and how their speed is measured."""

    baseline: str  # the network that the others are compared with
    networks: tuple[str, ...] = Field(min_length=1)
    calibration_faces: int = Field(ge=1)
    percentile: float = Field(gt=50.0, le=100.0)
    max_layer_error: float = Field(ge=0.0)
    sparsities: tuple[float, ...]
    threads: tuple[int, ...] = Field(min_length=1)
    rounds: int = Field(ge=2)
    price_per_core_hour: float = Field(gt=0.0)
    acceptance: AcceptanceCriteria
    tolerance: float = Fraction
    devices: dict[str, DeviceLimits]
    n_resamples: int = Field(ge=10)
    seed: int = Field(ge=0)


class ScaleParams(Section):
    """What other machines cost, and which training they are asked for."""

    price_per_gpu_hour: float = Field(gt=0.0)
    price_per_gb_month: float = Field(gt=0.0)
    price_per_gb_sent: float = Field(ge=0.0)
    images: tuple[int, ...] = Field(min_length=1)
    gpu_recipe: str
    gpu_train_faces: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    train_faces: int = Field(ge=1)
    epochs: int = Field(ge=1)
    gpus: tuple[int, ...] = Field(min_length=1)
    gpu_gb_per_second: float = Field(gt=0.0)


class GradcamParams(Section):
    """Which network is explained, and on how many faces its maps are tested."""

    network: str
    n_chosen: int = Field(ge=1)  # validation faces on which method and stage are chosen
    n_faces: int = Field(ge=1)
    n_randomised: int = Field(ge=1)
    min_faces: int = Field(ge=1)  # fewer are neither averaged nor judged as a group
    shifts: tuple[int, ...] = Field(min_length=1)
    n_resamples: int = Field(ge=10)
    seed: int = Field(ge=0)


class RobustnessParams(Section):
    """Which networks are shown perturbed and varied faces, and how many."""

    explained: str
    networks: tuple[str, ...] = Field(min_length=1)
    members: tuple[str, ...] = Field(min_length=1)
    comparisons: dict[str, tuple[str, str]]  # of two networks each
    audited: tuple[str, ...] = Field(min_length=1)
    mitigations: dict[str, str]  # audited network: the one that it is to improve on
    n_faces: int = Field(ge=1)
    n_saliency: int = Field(ge=1)
    n_counterfactuals: int = Field(ge=8)  # one of each class
    n_members: int = Field(ge=10)
    min_faces: int = Field(ge=1)
    n_permutations: int = Field(ge=10)
    n_resamples: int = Field(ge=10)
    seed: int = Field(ge=0)

    @model_validator(mode="after")
    def _check_names(self) -> "RobustnessParams":
        pairs = {"comparisons": [*self.comparisons.values()], "mitigations": [*self.mitigations.items()]}
        for title, known in {"comparisons": self.networks, "mitigations": self.audited}.items():
            for name in {name for pair in pairs[title] for name in pair} - set(known):
                raise ValueError(f"{title}: expected names among {', '.join(known)}, found {name!r}")
        return self


class Study(NamedTuple):
    """One question of the ablations: its arms, what they change, and where both stand in `params.yaml`.

    arms: name to what it changes of `reference`; None: this data set cannot have that arm.
    """

    reference: Changes
    arms: dict[str, Changes | None]
    place_of_reference: str
    place: str


class AblationsParams(Section):
    """Trainings of an equal budget, each changing one thing of a reference.

    Claims rest on `paper_studies`, which have the paper's epochs and all faces; `studies` explore with a few.
    """

    seeds: tuple[int, ...] = Field(min_length=1)
    n_resamples: int = Field(ge=10)
    paper_reference: Changes
    paper_studies: dict[str, dict[str, Changes | None]]
    members: tuple[str, ...]  # arms of the study `ensemble` that vote together
    reference: Changes
    studies: dict[str, dict[str, Changes | None]]

    @model_validator(mode="after")
    def _check_names(self) -> "AblationsParams":
        for name in self.paper_studies.keys() & self.studies.keys():
            raise ValueError(f"studies: expected other names than in paper_studies, found {name!r} in both")
        return self

    def list_studies(self) -> dict[str, Study]:
        """Return every study by its name, those that claims rest on first."""
        return {
            name: Study(reference, arms, f"ablations.{prefix}reference", f"ablations.{prefix}studies.{name}")
            for prefix, reference, studies in (
                ("paper_", self.paper_reference, self.paper_studies),
                ("", self.reference, self.studies),
            )
            for name, arms in studies.items()
        }


class ReleaseParams(Section):
    """The networks of a release, and how they are adjusted.

    judged_by: what temperature and threshold fit, the labels or the annotators' majority.   adjustment_cost:
    the accuracy on validation that logit adjustment may cost; 0: none is made.   default: the variant that is
    taken unless another is named.   variants: name to one network, `<recipe>.float32` or `<recipe>.int8`, or
    to several that vote; each voter is a variant of its own too.
    """

    judged_by: Literal["label", "majority"]
    adjustment_cost: float = Fraction
    default: str
    variants: dict[str, tuple[str, ...]] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_names(self) -> "ReleaseParams":
        if self.default not in self.variants:
            raise ValueError(f"default: expected one of {', '.join(self.variants)}, found {self.default!r}")
        singles = {voters[0] for voters in self.variants.values() if len(voters) == 1}
        for voter in {voter for voters in self.variants.values() for voter in voters} - singles:
            raise ValueError(f"variants: expected {voter!r}, which votes, as a variant of its own too")
        return self
