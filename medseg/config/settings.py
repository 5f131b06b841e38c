"""The settings of every command, declared once: a dataclass a group, each setting with its type, range and meaning.

The YAML files under ``conf/`` hold their values. What a user gives is checked by these declarations and shown by
``medseg COMMAND --help``; a job gets its settings as one object. What single objects take, such as a network, is
declared in their own signatures.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from medseg.config.schema import (
    PLANNED,
    Key,
    ObjectNode,
    Overrides,
    Regex,
    Seconds,
    from_checkpoint,
    keys_of,
    one_of,
    setting,
)

MODALITIES = ("mri", "ct", "xray", "ultrasound", "microscopy", "pet")
NORMALISATIONS = ("zscore", "ct", "percentile", "unit", "none")
METRICS = (
    *("dice", "iou", "sensitivity", "precision", "volume_difference", "relative_volume_difference"),
    *("hd95", "assd", "nsd", "cldice"),
    *("lesion_dice", "lesion_sensitivity", "lesion_precision", "lesion_f1", "lesion_hd95"),
)
Precision = Literal["auto", "bf16", "fp16", "fp32"]
GENERATIONS = (*(f"brats{year}" for year in range(2012, 2026)), "brats2024_ped", "decathlon")


@dataclass(frozen=True, kw_only=True)
class DatasetSettings:
    """A data set, whatever its layout."""

    name: str = setting("names the run's folder")
    root: Path = setting("the folder of the data")
    modality: tuple[str, ...] = setting(
        "one modality, or one a channel", MODALITIES, null="as the layout tells, or DICOM headers"
    )
    labels: dict[str, Any] | None = setting("class names and their values in the masks", null="read off the data")
    segments: dict[str, Any] | None = setting(
        "class of named segments by pattern, null: none", null="segments are named like the classes", default=None
    )
    regions: dict[str, Any] | None = setting(
        "unions of classes, learned in their place; {}: none", null="as the layout tells"
    )
    region_order: list[str] | None = setting("the class that each region is painted with", null="what no later one has")
    annotated_file: Path | None = setting("a CSV table with the columns id and annotated (classes)", null="all are")
    corrections: tuple[Path, ...] = setting(
        "a folder of corrected masks called like their cases, or a list", null="none", default=()
    )
    other_values: Literal["error", "nearest", "ignore"] = setting(
        "voxels of values that dataset.labels does not name: refused, of the nearest value's class, or unknown",
        default="error",
    )
    orientation: Literal["apply", "ignore"] = setting(
        "turn pictures as their EXIF or TIFF tag wants them shown", default="apply"
    )
    geometry: Literal["error", "warn", "resample"] = setting("what becomes of channels and masks on other grids")
    reference: int = setting("the channel on whose grid the others are read", "[0, inf)")
    verify: bool = setting(
        "read all files again, also those whose size and times say that they have not changed", default=False
    )
    group: Regex | None = setting("its first group in a case's id is the patient", null="every case its own")
    group_file: Path | None = setting("a CSV table with the columns id and group", null="none")
    layout: ObjectNode = setting("finds the cases under the root")


@dataclass(frozen=True, kw_only=True)
class FolderSettings(DatasetSettings):
    """A data set of files in folders."""

    images: Path = setting("sub-folder of the images")
    masks: Path | None = setting("sub-folder of the masks", null="there are none: scans to pre-train on")
    channels: list[str] | None = setting("name endings where each channel has its own file", null="one file a case")
    mask_endings: list[str] | None = setting("name endings of label maps, painted in this order", null="the usual ones")
    class_masks: dict[str, Any] | None = setting("name ending of each class's own mask", null="one label map for all")
    missing_masks: Literal["error", "empty", "unannotated"] = setting("what a missing one of several masks means")


@dataclass(frozen=True, kw_only=True)
class TableSettings(DatasetSettings):
    """A data set that a table lists."""

    table: Path = setting("a CSV table with a row a case, relative to the root or in full")
    image_columns: list[str] | None = setting("columns of the images, a channel each", null="image, or image_...")
    label_columns: list[str] | None = setting(
        "columns of label maps, painted in order", null="label or mask, or label_..."
    )
    class_columns: dict[str, Any] | None = setting("column of each class's own mask", null="label maps for all classes")


@dataclass(frozen=True, kw_only=True)
class BratsSettings(DatasetSettings):
    """A BraTS challenge's data set."""

    generation: str | None = setting(
        "the BraTS whose label values the masks have",
        GENERATIONS,
        null="as names, and where they leave it open masks, tell",
    )


@dataclass(frozen=True, kw_only=True)
class PhantomSettings(DatasetSettings):
    """A synthetic data set."""

    dims: Literal[2, 3] = setting("dimensions of the phantom")
    n_channels: int = setting("channels of the phantom", "[1, 16]")
    cases: int = setting("number of phantoms", "[1, inf)")
    size: int = setting("voxels along an axis of the phantom, about", "[16, inf)")
    seed: int = setting("fixes the phantoms", "[0, inf)")


@dataclass(frozen=True, kw_only=True)
class SplitSettings:
    """How cases are divided into training, validation and test."""

    val: float = setting("share of the groups for validation", "[0, 1)")
    test: float = setting("share of the groups for the test", "[0, 1)")
    file: Path | None = setting(
        "explicit case ids: splits.json, splits_final.json or a table", null="drawn by seed", default=None
    )
    folds: int | None = setting("folds of cross-validation", "[2, inf)", null="one split by share", default=None)
    fold: int = setting("the fold that validates", "[0, inf)", default=0)
    seed: int | None = setting("fixes the division into parts", "[0, inf)", null="the run's seed", default=None)
    labelled: int | None = setting(
        "groups to train and validate with, drawn by the run's seed, as if no others had masks",
        "[2, inf)",
        null="all",
        default=None,
    )


@dataclass(frozen=True, kw_only=True)
class PreprocessingSettings:
    """The way to the network grid."""

    spacing: list[float] | None = setting("spacing of the network grid, in mm", "(0, inf)", null=PLANNED)
    resize: list[int] | None = setting("shape of the network grid, in 2D", "[1, inf)", null="the images' own")
    crop: bool = setting("crop to the non-constant part")
    normalize: list[str] | None = setting("normalisation, one or one a channel", NORMALISATIONS, null=PLANNED)
    window: list[float] | None = setting("[low, high] of the CT window, in HU", null=PLANNED, default=None)
    denoise: Literal["gaussian", "median"] | None = setting("denoising filter", null="none")
    denoise_strength: float = setting("its width, in voxels", "(0, 32]")


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """What the user has a say in of the plan; ``NetworkPlan`` is what comes of it."""

    file: Path | None = setting("a plan.json to use instead of planning", null="plan from the data", default=None)
    device: Literal["cpu", "cuda"] | None = setting(
        "plan as for this kind of device", null="the one that trains", default=None
    )
    in_channels: int | None = setting("channels of the images", "[1, inf)", null=PLANNED)
    out_channels: int | None = setting("classes, background included", "[1, inf)", null=PLANNED)
    coarse_channels: int | None = setting(
        "last channels, a first stage's probabilities, to whose logits the network's are added; 0: none",
        "[0, inf)",
        null=PLANNED,
        default=None,
    )
    patch_size: list[int] | None = setting("voxels of a patch along each axis", "[1, inf)", null=PLANNED)
    batch_size: int | None = setting("patches in a batch", "[1, inf)", null=PLANNED)
    strides: list[list[int]] | None = setting("pooling per level and axis", "[1, inf)", null=PLANNED)
    kernel_sizes: list[list[int]] | None = setting("convolution kernels per stage and axis", "[1, inf)", null=PLANNED)
    divisor: int | None = setting("what every axis of a patch is a multiple of", "[1, inf)", null=PLANNED)
    budget: float = setting("voxels of a patch and a batch, relative to the default", "(0, inf)")
    mirror: Literal["symmetric", "all"] = setting(
        "axes to flip: those that the images are symmetric along, or all", default="symmetric"
    )
    mirror_axes: list[int] | None = setting("axes that may be flipped", "[0, 2]", null=PLANNED)
    slice_axis: int | None = setting("axis along which a 2D network goes through volumes", "[0, 2]", null=PLANNED)
    context: int = setting("neighbouring slices on either side that a 2D network sees as channels", "[0, 16]")


@dataclass(frozen=True, kw_only=True)
class NetworkPlan:
    """What is settled once a plan is made, or read from a checkpoint: how the network sees images."""

    patch_size: list[int]
    mirror_axes: list[int]
    slice_axis: int | None
    context: int
    coarse_channels: int = 0  # which older checkpoints lack


@dataclass(frozen=True, kw_only=True)
class TrainingPlan(NetworkPlan):
    """What a training also needs to know of its plan."""

    in_channels: int
    batch_size: int


@dataclass(frozen=True, kw_only=True)
class WeightsSettings:
    """Where published weights come from."""

    folder: Path | None = setting("where downloaded weights are kept", null="the platform's cache folder")
    published: dict[str, Any] = setting("address and checksum of published weights, by encoder or network and name")


@dataclass(frozen=True, kw_only=True)
class AugmentSettings:
    """What is done to patches before the network sees them."""

    spatial: ObjectNode | None = setting("rotation, scaling, elastic deformation and mirroring in one", null="none")
    intensity: list[ObjectNode] = setting("intensity augmentations, one after the other")
    transforms: list[ObjectNode] = setting("MONAI transforms added to each sample")


@dataclass(frozen=True, kw_only=True)
class DevicesSettings:
    """How many devices work."""

    devices: int = setting("how many of them", "[1, inf)", default=1)


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """How long, how often and on what a training runs.

    ``max_time`` ends it and moves its schedule (``training/callbacks/progress.py``), sets its validations
    (``training/assembly.py``) and chooses the width of the network (``preprocessing/planning/resources.py``).
    """

    max_epochs: int | None = setting("epochs to train at most", "[1, inf)", null="500, or no limit with max_time")
    max_time: Seconds | None = setting("time to train at most, validations included", null="no limit")
    steps_per_epoch: int = setting("batches in an epoch", "[1, inf)")
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = setting("where to train")
    devices: int | str | list[int] = setting("which of them train together on this machine", default=1)
    num_nodes: int = setting("machines that train together, started by srun or torchrun", "[1, inf)", default=1)
    precision: Precision = setting("arithmetic of the network")
    memory_gb: float | None = setting(
        "memory that the plan may use, in GB", "(0, inf)", null="nine tenths of a GPU's free memory, half of a CPU's"
    )
    compile: bool | None = setting(
        "compile the network with torch.compile", null="on a GPU, if it works and the training lasts"
    )
    channels_last: bool | None = setting("channels last in memory", null="as measured on the device")
    gradient_clip: float | None = setting("largest norm of the gradient", "(0, inf)", null="no clipping")
    accumulate: int = setting("batches for each step of the optimizer", "[1, inf)")
    averaging: float | None = setting("share of the steps that weights are averaged over", "(0, 1)", null="none")
    validation_interval: int | None = setting(
        "epochs from one validation to the next",
        "[1, inf)",
        null="as validation_share allows, without max_time at most 50 in a run",
    )
    validation_share: float = setting(
        "share of the time that validations may take, without max_time of the work", "(0, 1)"
    )
    validation_cases: int | None = setting(
        "cases that validate at most; which ones is the same in every run of a split",
        "[1, inf)",
        null="all, or as many as validation_share allows 20 times in a run, at least 20",
        default=None,
    )
    patience: int | None = setting("validations without gain before stopping", "[1, inf)", null="no early stop")
    min_gain: float | None = setting(
        "validation score that the rest of a training must promise to gain, else it ends sooner",
        "(0, 1)",
        null="no early end",
        default=None,
    )
    foreground: float = setting("share of patches centred on foreground", "[0, 1]")
    head_factor: float | None = setting(
        "factor on the learning rate of the head, in a training that begins untrained; of others finetune.head_factor",
        "(0, inf)",
        null="10 with Adam and AdamW, else 1; 1 in pretrain",
        default=1.0,
    )
    class_prior: bool = setting(
        "begin with outputs at the class frequencies; not pretrain, nor a cascade's second stage", default=False
    )
    workers: int | None = setting(
        "processes that load data", "[0, inf)", null="none for a CPU, as many as keep a GPU busy"
    )
    deterministic: bool = setting("same result on every run, more slowly")

    @property
    def epochs(self) -> int | None:
        """After how many epochs training ends: where none are given 500, or none with a time limit."""
        return self.max_epochs or (None if self.max_time else 500)

    def limited(self, share: float) -> "TrainerSettings":
        """Return the settings with this share of the time and of the epochs, at least a second and one epoch."""
        max_time = Seconds(max(1, round(self.max_time * share))) if self.max_time else None
        return replace(self, max_time=max_time, max_epochs=max(1, round(self.epochs * share)) if self.epochs else None)


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
    """How a training begins with the weights of another, and which learn. By default everything learns alike."""

    checkpoint: Path | None = setting(
        "weights to begin with: a run or .ckpt, nnU-Net's folder or .pth, or a state dict",
        null="begin anew",
        default=None,
    )
    preprocessing: Literal["source", "own"] = setting(
        "spacing and normalisation: those of the weights' source, or own: planned from the data",
        default="source",
    )
    freeze_encoder: bool = setting("leave the encoder as it is", default=False)
    freeze_levels: int = setting(
        "leave so many levels of the encoder as they are, from the first", "[0, inf)", default=0
    )
    unfreeze_epoch: int | None = setting(
        "epochs after which these levels learn, too", "[1, inf)", null="they never do", default=None
    )
    freeze_norm: bool = setting("leave the norms as they are, affine parameters and statistics", default=False)
    layer_decay: float = setting(
        "factor on the learning rate from each stage to the one before it", "(0, 1]", default=1.0
    )
    head_factor: float = setting("factor on the learning rate of the head", "(0, inf)", default=1.0)
    l2_sp: float = setting(
        "weight decay towards the weights to begin with, in place of that to 0", "[0, inf)", default=0.0
    )


@dataclass(frozen=True, kw_only=True)
class InferenceSettings:
    """How the network goes over a scan, and when a voxel is foreground."""

    overlap: float = setting("overlap of neighbouring windows", "[0, 1)")
    tta: bool | None = setting("test-time augmentation by mirroring", null="of pictures, but not while training")
    threshold: float | None = setting("probability that makes a voxel foreground", "(0, 1)", null="likeliest class")
    thresholds: dict[str, float] = setting("thresholds of single regions, by region", "(0, 1)", default={})
    batch_size: int = setting("windows in a batch", "[1, inf)")


@dataclass(frozen=True, kw_only=True)
class PostprocessSettings:
    """What is cleaned out of a predicted label map."""

    largest: bool = setting("keep the largest component of each class")
    min_ml: float = setting("drop components smaller than this, in ml", "[0, inf)")
    min_voxels: int = setting("drop components smaller than this, in voxels", "[0, inf)")
    fill_holes: bool = setting("fill holes enclosed by a class")
    smooth_mm: float = setting("width of border smoothing, in mm", "[0, inf)")
    classes: dict[str, Any] = setting("of single classes or regions their own of these, smoothing excepted", default={})


@dataclass(frozen=True, kw_only=True)
class MetricNames:
    """Which metrics are measured, or compared."""

    names: tuple[str, ...] = setting(
        "what to measure: a preset, or a list of metrics", ("basic", "full", "brats", *METRICS)
    )


@dataclass(frozen=True, kw_only=True)
class MetricsSettings(MetricNames):
    """What is measured, and how."""

    nsd_mm: float = setting("tolerance of the surface Dice, in mm (px in pictures)", "(0, inf)")
    surface: Literal["elements", "voxel"] = setting(
        "surfaces as weighted elements, or as voxels of the border, as MONAI has them"
    )
    lesions: Literal["overlap", "brats"] | None = setting(
        "how components are matched: by overlap, or as BraTS 2023", null="by the preset"
    )
    missed_mm: float | None = setting("distance where one mask is empty", "(0, inf)", null="none, 374 with names=brats")
    strata: list[str] = setting(
        "columns of the data set's table to report apart, such as site; many numbers by quarters"
    )


@dataclass(frozen=True, kw_only=True)
class ReadSettings:
    """Limits of what is read."""

    max_gb: float = setting(
        "largest scan that is read, and largest grid that one is resampled to, in GB (10^9 bytes) of float32 voxels; "
        "what describes itself as larger is damaged, or made to fill the memory",
        "(0, inf)",
        default=8.0,
    )


@dataclass(frozen=True, kw_only=True)
class CommandSettings:
    """What every command is told."""

    command: Literal["train", "pretrain", "eval", "predict", "compare", "inspect", "export", "cache", "doctor"] = (
        setting("the job that a root config describes")
    )


@dataclass(frozen=True, kw_only=True)
class ReadingSettings(CommandSettings):
    """What every command is told that reads scans."""

    trust: list[str] = setting(
        "classes, or trainers of nnU-Net, beyond the known ones that a checkpoint or a run may name"
    )
    read: ReadSettings = field(default_factory=ReadSettings)


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(ReadingSettings):
    """What trainings of either kind are told."""

    seed: int = setting("fixes every random draw", "[0, inf)")
    run_dir: Path | None = setting("where the run's files go", null="a new folder under outputs/")
    resume: Path | None = setting("a run directory to go on with; auto: run_dir, if there is a run", null="start anew")
    explicit_keys: list[str] = setting(
        "keys whose values win over those of finetune.checkpoint; those on the command line are added", default=[]
    )
    finetune: FinetuneSettings = field(default_factory=FinetuneSettings)
    cache_dir: Path = setting("where preprocessed scans are kept")
    dataset: DatasetSettings = one_of(FolderSettings, TableSettings, BratsSettings, PhantomSettings)
    split: SplitSettings
    preprocessing: PreprocessingSettings
    plan: PlanSettings
    model: ObjectNode
    weights: WeightsSettings | None = None
    optimizer: ObjectNode
    scheduler: ObjectNode
    augment: AugmentSettings
    trainer: TrainerSettings
    logger: dict[str, ObjectNode]

    @property
    def limits(self) -> TrainerSettings:
        """The trainer's settings with the time and the epochs that are this training's own."""
        return self.trainer


@dataclass(frozen=True, kw_only=True)
class SweepSettings:
    """What is done at the end of a sweep of trainings."""

    test: Literal["best", "all", "none"] = setting(
        "which trainings of a sweep (-m) are tested: the best by validation, all, or none", default="all"
    )


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How a search (``hydra/sweeper=optuna``) draws its trials."""

    trials: int = setting("trainings of a search, or as many as there are combinations", "[1, inf)", default=20)
    time: Seconds | None = setting(
        "training time of all trials together, after which none begins", null="no limit", default=None
    )
    pruning: bool = setting(
        "end trials that are not among the better half at 15, 30 and 60 % of their training", default=True
    )
    repeats: int = setting(
        "further seeds with which the best three are trained, to be ranked by their mean", "[0, inf)", default=0
    )
    seed: int = setting("fixes what is drawn", "[0, inf)", default=0)
    space: dict[str, Any] = setting("values by key, as in a sweep, of the keys that the line does not give", default={})


@dataclass(frozen=True, kw_only=True)
class FirstStageSettings:
    """Coarse models whose result in a scan the model at full resolution uses (``medseg/inference/first_stage.py``)."""

    use: Literal["channels", "region"] | None = setting(
        "what the second stage takes of the coarse models: probabilities as further channels, or the region to work in",
        null="there is one stage",
        default=None,
    )
    folds: int = setting("folds of the training cases, a coarse model each", "[2, inf)", default=3)
    share: float = setting("share of trainer.max_time, or max_epochs, for all coarse models", "(0, 1)", default=0.3)
    spacing: list[float] | None = setting(
        "spacing of the coarse grid, in mm", "(0, inf)", null="planned: a patch holds the median scan", default=None
    )
    margin: float = setting("margin round what was found, in mm (px in pictures)", "[0, inf)", default=20.0)
    errors: float = setting(
        "share of the patches whose further channels get simulated errors; half as many lose a component",
        "[0, 1]",
        default=0.4,  # what older runs had
    )

    def left_of(self, trainer: TrainerSettings) -> TrainerSettings:
        """Return the trainer's settings with the time and the epochs that are left for the second stage."""
        return trainer.limited(1 - self.share) if self.use else trainer


@dataclass(frozen=True, kw_only=True)
class TrainSettings(TrainingSettings):
    """``medseg train``, and ``medseg inspect``."""

    first_stage: FirstStageSettings = field(default_factory=FirstStageSettings)
    loss: ObjectNode
    inference: InferenceSettings
    postprocess: PostprocessSettings
    metrics: MetricsSettings | None = None
    sweep: SweepSettings = field(default_factory=SweepSettings)
    search: SearchSettings = field(default_factory=SearchSettings)

    @property
    def limits(self) -> TrainerSettings:
        """The trainer's settings with what a first stage leaves of the time and the epochs."""
        return self.first_stage.left_of(self.trainer)


@dataclass(frozen=True, kw_only=True)
class PretrainSettings(TrainingSettings):
    """``medseg pretrain``."""

    pretext: ObjectNode
    reconstruction: Literal["l1", "l2"] = setting(
        "distance of a reconstruction from the scan: mean absolute (l1) or squared (l2)"
    )


@dataclass(frozen=True, kw_only=True)
class ModelSettings(ReadingSettings):
    """What every command is told that uses trained models."""

    checkpoint: tuple[Path, ...] = setting(
        "a run directory, a .ckpt or .onnx file, a folder of runs, folds or a selection, nnU-Net's, or a list of these:"
        " an ensemble"
    )
    device: str = setting("where to compute: auto, cpu, gpu, cuda:1, mps")


@dataclass(frozen=True, kw_only=True)
class EvalSettings(ModelSettings):
    """``medseg eval``."""

    checkpoint: tuple[Path, ...] = setting(
        "a run directory, a .ckpt or .onnx file, a folder of runs, folds or a selection, nnU-Net's, or a list of these:"
        " an ensemble",
        null="none: predictions are given",
    )
    predictions: tuple[Path, ...] = setting(
        "a folder of masks made elsewhere to evaluate, or a list", null="only the checkpoint"
    )
    ensemble: bool = setting("average several checkpoints; false: evaluate and compare each by itself")
    subset: Literal["test", "val", "train", "all"] | None = setting(
        "the part of the data to evaluate",
        null="test of the checkpoint's own data, all of another's",
    )
    tune: Literal["postprocess", "undo"] | None = setting(
        "choose post-processing, and thresholds of regions, on the validation cases and save them with the checkpoint; "
        "or undo that",
        null="evaluate",
    )
    run_dir: Path | None = setting("where the run's files go", null="a new folder under outputs/")
    precision: Precision | None = setting("arithmetic of the network", null="as the checkpoint was trained")
    examples: int = setting("cases to draw with prediction and truth, from the worst to the best", "[0, inf)")
    dataset: Overrides = from_checkpoint(FolderSettings, TableSettings, BratsSettings, PhantomSettings)
    split: Overrides = from_checkpoint(SplitSettings)
    inference: Overrides = from_checkpoint(InferenceSettings)
    postprocess: Overrides = from_checkpoint(PostprocessSettings)
    metrics: MetricsSettings


@dataclass(frozen=True, kw_only=True)
class ShardSettings:
    """How scans are divided between processes."""

    shard: str | None = setting("only this part of the scans: 2/8 is the second of eight", null="all")


@dataclass(frozen=True, kw_only=True)
class PredictSettings(ModelSettings):
    """``medseg predict``."""

    input: Path = setting("a scan, or a folder of scans")
    output: Path = setting("the folder for masks")
    precision: Precision | None = setting("arithmetic of the network", null="as the checkpoint was trained")
    format: Literal["image", "nifti", "seg.nrrd", "rtstruct", "dicom_seg"] = setting(
        "form of the masks: as the image, NIfTI, or with named classes"
    )
    meshes: bool = setting("also write the surface of each class, an STL file each")
    codes: dict[str, Any] | None = setting(
        "code of each class for DICOM and 3D Slicer", null="private codes, made of the names"
    )
    privacy: Literal["keep", "strip"] = setting(
        "what DICOM masks say of patient and study: what the standard demands, or only the UIDs of the images"
    )
    overlays: Literal[False, True, "png", "html"] = setting(
        "draw each mask over its scan; html: and make a page of all"
    )
    save_probabilities: bool = setting("also write the probabilities of each class, a file each")
    uncertainty: bool = setting("also write how unsure the model was of each voxel, and rank the cases by it")
    worst: int = setting("lay out so many of the least certain cases to be corrected", "[0, inf)")
    skip_done: bool = setting("leave out scans whose results are there, made of the same files and settings")
    predict: ShardSettings
    trainer: DevicesSettings
    dataset: Overrides = from_checkpoint(DatasetSettings)
    inference: Overrides = from_checkpoint(InferenceSettings)
    postprocess: Overrides = from_checkpoint(PostprocessSettings)


@dataclass(frozen=True, kw_only=True)
class ExportSettings(ModelSettings):
    """``medseg export``."""

    output: Path = setting("the .onnx file to write")
    case: tuple[Path, ...] = setting(
        "the scan to check an export on, one file or one a channel", null="one of the run's own"
    )
    dataset: Overrides = from_checkpoint(DatasetSettings)


@dataclass(frozen=True, kw_only=True)
class CompareSettings(ReadingSettings):
    """``medseg compare``."""

    runs: tuple[Path, ...] = setting(
        "run directories with a report of the same cases, or folders of them such as a sweep's, whose jobs are shown "
        "ranked, too, also while it runs"
    )
    select: Literal["best"] | None = setting(
        "find the run, cross-validation or ensemble of two that has the best Dice on the cases it was not trained on, "
        "and write what checkpoint= takes; Dice alone is compared",
        null="compare the reports",
    )
    device: str = setting("where to compute what select needs: auto, cpu, gpu, cuda:1, mps")
    run_dir: Path | None = setting("where the run's files go", null="a new folder under outputs/")
    metrics: MetricNames


@dataclass(frozen=True, kw_only=True)
class CacheSettings(CommandSettings):
    """``medseg cache``."""

    cache_dir: Path = setting("where preprocessed scans are kept")
    clean: bool = setting("remove what is shown")
    dataset_name: str | None = setting("only the files of this data set (dataset.name)", null="of all")
    older_than_days: float | None = setting(
        "only files that no run has used for so long", "[0, inf)", null="of any age"
    )
    outdated: bool = setting("only what no run will use again: files of older formats and of killed runs")


@dataclass(frozen=True, kw_only=True)
class DoctorSettings(CommandSettings):
    """``medseg doctor``."""

    device: str = setting("where to compute: auto, cpu, gpu, cuda:1, mps")
    cache_dir: Path = setting("where preprocessed scans are kept")
    json: Path | None = setting("also write what is found into this file, as JSON", null="only print it")


COMMANDS: dict[str, type[CommandSettings]] = {
    "train": TrainSettings,
    "inspect": TrainSettings,
    "pretrain": PretrainSettings,
    "eval": EvalSettings,
    "predict": PredictSettings,
    "compare": CompareSettings,
    "export": ExportSettings,
    "cache": CacheSettings,
    "doctor": DoctorSettings,
}
"""The settings of each command."""

KEYS_OF: dict[str, dict[str, Key]] = {command: keys_of(group) for command, group in COMMANDS.items()}
"""The keys of each command by dotted path, which is what a user writes."""

KEYS: dict[str, Key] = {path: key for keys in KEYS_OF.values() for path, key in keys.items()}
"""Those of all commands; null may be taken from a checkpoint wherever one command allows it."""

OBJECTS = (
    *("model", "pretext", "loss", "optimizer", "scheduler", "logger", "dataset.layout"),
    *("augment.spatial", "augment.intensity", "augment.transforms"),
)
"""The keys that hold an object, or a list of them. Nowhere else may a config from a file have a ``_target_``."""

WITH_OBJECTS = ("medseg.training.losses.WeightedSum", "medseg.training.losses.OnProbabilities")
"""medseg's own targets that take objects of their own kind as arguments."""

OPEN = ("medseg.models.monai.", "medseg.training.trackers.TensorBoard")
"""Beginnings of medseg's own targets that hand on arguments which the table does not hold, to another package."""
