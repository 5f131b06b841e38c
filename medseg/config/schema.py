"""medseg's own configuration keys: type, range and meaning. The YAML files under ``conf/`` hold their defaults.

``KEYS`` names the keys outside ``_target_`` nodes by their dotted path, ``ARGUMENTS`` those of medseg's own classes by
target. What other packages' classes take is checked where it is built.
"""

from dataclasses import dataclass

BOOL = "true or false"
INT = "a whole number"
NUMBER = "a number"
TEXT = "text"
BOOL_OR_TEXT = "true, false or text"
PATH = "a path"
PATHS = "a path or a list of paths"
REGEX = "a regular expression"
DURATION = "a duration 'DD:HH:MM:SS'"
INTS = "a list of whole numbers"
NUMBERS = "a list of numbers"
TEXTS = "a list of texts"
INT_OR_INTS = "a whole number or a list of them"
TEXT_OR_TEXTS = "text or a list of texts"
MAPPING = "a mapping"
NUMBERS_BY_NAME = "a mapping of names to numbers"
NODE = "one object (a mapping with _target_)"
NODES = "a list of objects (mappings with _target_)"

SAVED = "saved"
"""The option of a group that stands for what a checkpoint holds: a default of eval and predict, never chosen."""

Allowed = str | tuple[str | int, ...]


@dataclass(frozen=True)
class Key:
    """What a key may hold.

    ``allowed`` is an interval such as ``"[0, 1)"`` or the choices; of a list it concerns every item. ``null`` says what
    null means where it is allowed, and is empty where it is not.
    """

    kind: str
    meaning: str
    allowed: Allowed = ()
    null: str = ""


PLANNED = "planned from the data"
MODALITIES = ("mri", "ct", "xray", "ultrasound", "microscopy", "pet")
NORMALISATIONS = ("zscore", "ct", "percentile", "unit", "none")
COMMANDS = ("train", "pretrain", "eval", "predict", "compare", "inspect", "export", "cache")
METRICS = (
    *("dice", "iou", "sensitivity", "precision", "volume_difference", "relative_volume_difference"),
    *("hd95", "assd", "nsd", "cldice"),
    *("lesion_dice", "lesion_sensitivity", "lesion_precision", "lesion_f1", "lesion_hd95"),
)
PRECISIONS = ("auto", "bf16", "fp16", "fp32")

KEYS: dict[str, Key] = {
    "command": Key(TEXT, "the job that a root config describes", COMMANDS),
    "seed": Key(INT, "fixes every random draw", "[0, inf)"),
    "run_dir": Key(PATH, "where the run's files go", null="a new folder under outputs/"),
    "resume": Key(PATH, "a run directory to go on with", null="start anew"),
    "explicit_keys": Key(
        TEXTS, "keys whose values win over those of finetune.checkpoint; those on the command line are added"
    ),
    "finetune.checkpoint": Key(
        PATH, "weights to begin with: a run or .ckpt, nnU-Net's folder or .pth, or a state dict", null="begin anew"
    ),
    "finetune.preprocessing": Key(
        TEXT,
        "spacing and normalisation: those of the weights' source, or own: planned from the data",
        ("source", "own"),
    ),
    "finetune.freeze_encoder": Key(BOOL, "leave the encoder as it is"),
    "finetune.freeze_levels": Key(INT, "leave so many levels of the encoder as they are, from the first", "[0, inf)"),
    "finetune.unfreeze_epoch": Key(INT, "epochs after which these levels learn, too", "[1, inf)", null="they never do"),
    "finetune.freeze_norm": Key(BOOL, "leave the norms as they are, affine parameters and statistics"),
    "finetune.layer_decay": Key(NUMBER, "factor on the learning rate from each stage to the one before it", "(0, 1]"),
    "finetune.head_factor": Key(NUMBER, "factor on the learning rate of the head", "(0, inf)"),
    "finetune.l2_sp": Key(NUMBER, "weight decay towards the weights to begin with, in place of that to 0", "[0, inf)"),
    "reconstruction": Key(
        TEXT, "distance of a reconstruction from the scan: mean absolute (l1) or squared (l2)", ("l1", "l2")
    ),
    "cache_dir": Key(PATH, "where preprocessed scans are kept"),
    "clean": Key(BOOL, "remove what is shown"),
    "dataset_name": Key(TEXT, "only the files of this data set (dataset.name)", null="of all"),
    "older_than_days": Key(NUMBER, "only files that no run has used for so long", "[0, inf)", null="of any age"),
    "outdated": Key(BOOL, "only what no run will use again: files of older formats and of killed runs"),
    "checkpoint": Key(
        PATHS,
        "a run directory, a .ckpt or .onnx file, a folder of runs, nnU-Net's folder, or a list of these: an ensemble",
        null="none: predictions are given",
    ),
    "runs": Key(PATHS, "run directories with a report of the same cases, or folders of them such as a sweep's"),
    "input": Key(PATH, "a scan, or a folder of scans"),
    "output": Key(PATH, "the folder for masks, or the .onnx file to export to"),
    "case": Key(PATHS, "the scan to check an export on, one file or one a channel", null="one of the run's own"),
    "skip_done": Key(BOOL, "leave out scans whose results are there, made of the same files and settings"),
    "save_probabilities": Key(BOOL, "also write the probabilities of each class, a file each"),
    "predict.shard": Key(TEXT, "only this part of the scans: 2/8 is the second of eight", null="all"),
    "subset": Key(
        TEXT,
        "the part of the data to evaluate",
        ("test", "val", "train", "all"),
        null="test of the checkpoint's own data, all of another's",
    ),
    "tune": Key(
        TEXT,
        "choose post-processing, and thresholds of regions, on the validation cases and save them with the checkpoint; "
        "or undo that",
        ("postprocess", "undo"),
        null="evaluate",
    ),
    "predictions": Key(PATHS, "a folder of masks made elsewhere to evaluate, or a list", null="only the checkpoint"),
    "ensemble": Key(BOOL, "average several checkpoints; false: evaluate and compare each by itself"),
    "trust": Key(TEXTS, "classes, or trainers of nnU-Net, beyond the known ones that a checkpoint or a run may name"),
    "device": Key(TEXT, "where to compute: auto, cpu, gpu, cuda:1, mps"),
    "precision": Key(TEXT, "arithmetic of the network", PRECISIONS, null="as the checkpoint was trained"),
    "read.max_gb": Key(
        NUMBER,
        "largest scan that is read, and largest grid that one is resampled to, in GB (10^9 bytes) of float32 voxels; "
        "what describes itself as larger is damaged, or made to fill the memory",
        "(0, inf)",
    ),
    "format": Key(
        TEXT,
        "form of the masks: as the image, NIfTI, or with named classes",
        ("image", "nifti", "seg.nrrd", "rtstruct", "dicom_seg"),
    ),
    "meshes": Key(BOOL, "also write the surface of each class, an STL file each"),
    "codes": Key(MAPPING, "code of each class for DICOM and 3D Slicer", null="private codes, made of the names"),
    "privacy": Key(
        TEXT,
        "what DICOM masks say of patient and study: what the standard demands, or only the UIDs of the images",
        ("keep", "strip"),
    ),
    "overlays": Key(
        BOOL_OR_TEXT, "draw each mask over its scan; html: and make a page of all", (False, True, "png", "html")
    ),
    "uncertainty": Key(BOOL, "also write how unsure the model was of each voxel, and rank the cases by it"),
    "worst": Key(INT, "lay out so many of the least certain cases to be corrected", "[0, inf)"),
    "examples": Key(INT, "cases to draw with prediction and truth, from the worst to the best", "[0, inf)"),
    # dataset
    "dataset.name": Key(TEXT, "names the run's folder"),
    "dataset.root": Key(PATH, "the folder of the data"),
    "dataset.images": Key(PATH, "sub-folder of the images"),
    "dataset.masks": Key(PATH, "sub-folder of the masks", null="there are none: scans to pre-train on"),
    "dataset.channels": Key(TEXTS, "name endings where each channel has its own file", null="one file a case"),
    "dataset.mask_endings": Key(TEXTS, "name endings of label maps, painted in this order", null="the usual ones"),
    "dataset.class_masks": Key(MAPPING, "name ending of each class's own mask", null="one label map for all"),
    "dataset.missing_masks": Key(TEXT, "what a missing one of several masks means", ("error", "empty", "unannotated")),
    "dataset.table": Key(PATH, "a CSV table with a row a case, relative to the root or in full"),
    "dataset.image_columns": Key(TEXTS, "columns of the images, a channel each", null="image, or image_..."),
    "dataset.label_columns": Key(TEXTS, "columns of label maps, painted in order", null="label or mask, or label_..."),
    "dataset.class_columns": Key(MAPPING, "column of each class's own mask", null="label maps for all classes"),
    "dataset.modality": Key(TEXT_OR_TEXTS, "one modality, or one a channel", MODALITIES, null="as the layout tells"),
    "dataset.generation": Key(
        TEXT,
        "the BraTS whose label values the masks have",
        (*(f"brats{year}" for year in range(2012, 2026)), "brats2024_ped", "decathlon"),
        null="as names, and where they leave it open masks, tell",
    ),
    "dataset.labels": Key(MAPPING, "class names and their values in the masks", null="read off the data"),
    "dataset.segments": Key(
        MAPPING, "class of named segments by pattern, null: none", null="segments are named like the classes"
    ),
    "dataset.regions": Key(MAPPING, "unions of classes, learned in their place; {}: none", null="as the layout tells"),
    "dataset.region_order": Key(TEXTS, "the class that each region is painted with", null="what no later one has"),
    "dataset.annotated_file": Key(PATH, "a CSV table with the columns id and annotated (classes)", null="all are"),
    "dataset.corrections": Key(PATHS, "a folder of corrected masks called like their cases, or a list", null="none"),
    "dataset.other_values": Key(
        TEXT,
        "voxels of values that dataset.labels does not name: refused, of the nearest value's class, or unknown",
        ("error", "nearest", "ignore"),
    ),
    "dataset.orientation": Key(TEXT, "turn pictures as their EXIF or TIFF tag wants them shown", ("apply", "ignore")),
    "dataset.geometry": Key(TEXT, "what becomes of channels and masks on other grids", ("error", "warn", "resample")),
    "dataset.reference": Key(INT, "the channel on whose grid the others are read", "[0, inf)"),
    "dataset.group": Key(REGEX, "its first group in a case's id is the patient", null="every case its own"),
    "dataset.group_file": Key(PATH, "a CSV table with the columns id and group", null="none"),
    "dataset.dims": Key(INT, "dimensions of the phantom", (2, 3)),
    "dataset.n_channels": Key(INT, "channels of the phantom", "[1, 16]"),
    "dataset.cases": Key(INT, "number of phantoms", "[1, inf)"),
    "dataset.size": Key(INT, "voxels along an axis of the phantom, about", "[16, inf)"),
    "dataset.seed": Key(INT, "fixes the phantoms", "[0, inf)"),
    "dataset.layout": Key(NODE, "finds the cases under the root"),
    # split
    "split.val": Key(NUMBER, "share of the groups for validation", "[0, 1)"),
    "split.test": Key(NUMBER, "share of the groups for the test", "[0, 1)"),
    "split.file": Key(PATH, "explicit case ids: splits.json, splits_final.json or a table", null="drawn by seed"),
    "split.folds": Key(INT, "folds of cross-validation", "[2, inf)", null="one split by share"),
    "split.fold": Key(INT, "the fold that validates", "[0, inf)"),
    "split.seed": Key(INT, "fixes the division into parts", "[0, inf)", null="the run's seed"),
    "split.labelled": Key(
        INT,
        "groups to train and validate with, drawn by the run's seed, as if no others had masks",
        "[2, inf)",
        null="all",
    ),
    # preprocessing
    "preprocessing.spacing": Key(NUMBERS, "spacing of the network grid, in mm", "(0, inf)", null=PLANNED),
    "preprocessing.resize": Key(INTS, "shape of the network grid, in 2D", "[1, inf)", null="the images' own"),
    "preprocessing.crop": Key(BOOL, "crop to the non-constant part"),
    "preprocessing.normalize": Key(TEXTS, "normalisation, one or one a channel", NORMALISATIONS, null=PLANNED),
    "preprocessing.window": Key(NUMBERS, "[low, high] of the CT window, in HU", null=PLANNED),
    "preprocessing.denoise": Key(TEXT, "denoising filter", ("gaussian", "median"), null="none"),
    "preprocessing.denoise_strength": Key(NUMBER, "its width, in voxels", "(0, 32]"),
    # plan
    "plan.file": Key(PATH, "a plan.json to use instead of planning", null="plan from the data"),
    "plan.device": Key(TEXT, "plan as for this kind of device", ("cpu", "cuda"), null="the one that trains"),
    "plan.in_channels": Key(INT, "channels of the images", "[1, inf)", null=PLANNED),
    "plan.out_channels": Key(INT, "classes, background included", "[1, inf)", null=PLANNED),
    "plan.patch_size": Key(INTS, "voxels of a patch along each axis", "[1, inf)", null=PLANNED),
    "plan.batch_size": Key(INT, "patches in a batch", "[1, inf)", null=PLANNED),
    "plan.strides": Key(INTS, "pooling per level and axis", "[1, inf)", null=PLANNED),
    "plan.kernel_sizes": Key(INTS, "convolution kernels per stage and axis", "[1, inf)", null=PLANNED),
    "plan.divisor": Key(INT, "what every axis of a patch is a multiple of", "[1, inf)", null=PLANNED),
    "plan.budget": Key(NUMBER, "voxels of a patch and a batch, relative to the default", "(0, inf)"),
    "plan.mirror": Key(TEXT, "axes to flip: those that the images are symmetric along, or all", ("symmetric", "all")),
    "plan.mirror_axes": Key(INTS, "axes that may be flipped", "[0, 2]", null=PLANNED),
    "plan.slice_axis": Key(INT, "axis along which a 2D network goes through volumes", "[0, 2]", null=PLANNED),
    "plan.context": Key(INT, "neighbouring slices on either side that a 2D network sees as channels", "[0, 16]"),
    # published weights
    "model.weights": Key(PATH, "a file of the weights that model.pretrained names", null="downloaded"),
    "weights.folder": Key(PATH, "where downloaded weights are kept", null="the platform's cache folder"),
    "weights.published": Key(MAPPING, "address and checksum of published weights, by encoder or network and name"),
    # augment
    "augment.spatial": Key(NODE, "rotation, scaling, elastic deformation and mirroring in one", null="none"),
    "augment.intensity": Key(NODES, "intensity augmentations, one after the other"),
    "augment.transforms": Key(NODES, "MONAI transforms added to each sample"),
    # trainer
    "trainer.max_epochs": Key(INT, "epochs to train at most", "[1, inf)", null="500, or no limit with max_time"),
    "trainer.max_time": Key(DURATION, "time to train at most, validations included", null="no limit"),
    "trainer.steps_per_epoch": Key(INT, "batches in an epoch", "[1, inf)"),
    "trainer.accelerator": Key(TEXT, "where to train", ("auto", "cpu", "gpu", "cuda", "mps")),
    "trainer.devices": Key(INT, "how many of them", "[1, inf)"),
    "trainer.precision": Key(TEXT, "arithmetic of the network", PRECISIONS),
    "trainer.memory_gb": Key(NUMBER, "memory that the plan may use, in GB", "(0, inf)", null="what the device has"),
    "trainer.compile": Key(BOOL, "compile the network with torch.compile", null="on a GPU, for trainings that last"),
    "trainer.channels_last": Key(BOOL, "channels last in memory", null="as measured on the device"),
    "trainer.gradient_clip": Key(NUMBER, "largest norm of the gradient", "(0, inf)", null="no clipping"),
    "trainer.accumulate": Key(INT, "batches for each step of the optimizer", "[1, inf)"),
    "trainer.averaging": Key(NUMBER, "share of the steps that weights are averaged over", "(0, 1)", null="none"),
    "trainer.validation_interval": Key(
        INT,
        "epochs from one validation to the next",
        "[1, inf)",
        null="by its cost with max_time, else a fiftieth of the run",
    ),
    "trainer.validation_share": Key(NUMBER, "share of the time that validations may take", "(0, 1)"),
    "trainer.patience": Key(INT, "validations without gain before stopping", "[1, inf)", null="no early stop"),
    "trainer.foreground": Key(NUMBER, "share of patches centred on foreground", "[0, 1]"),
    "trainer.workers": Key(INT, "processes that load data", "[0, inf)", null="none for a CPU, up to 8 for a GPU"),
    "trainer.deterministic": Key(BOOL, "same result on every run, more slowly"),
    # inference
    "inference.overlap": Key(NUMBER, "overlap of neighbouring windows", "[0, 1)"),
    "inference.tta": Key(BOOL, "test-time augmentation by mirroring"),
    "inference.threshold": Key(NUMBER, "probability that makes a voxel foreground", "(0, 1)", null="likeliest class"),
    "inference.thresholds": Key(NUMBERS_BY_NAME, "thresholds of single regions, by region", "(0, 1)"),
    "inference.batch_size": Key(INT, "windows in a batch", "[1, inf)"),
    # metrics
    "metrics.names": Key(
        TEXT_OR_TEXTS, "what to measure: a preset, or a list of metrics", ("basic", "full", "brats", *METRICS)
    ),
    "metrics.nsd_mm": Key(NUMBER, "tolerance of the surface Dice, in mm (px in pictures)", "(0, inf)"),
    "metrics.surface": Key(
        TEXT, "surfaces as weighted elements, or as voxels of the border, as MONAI has them", ("elements", "voxel")
    ),
    "metrics.lesions": Key(
        TEXT, "how components are matched: by overlap, or as BraTS 2023", ("overlap", "brats"), null="by the preset"
    ),
    "metrics.missed_mm": Key(NUMBER, "distance where one mask is empty", "(0, inf)", null="none, 374 with names=brats"),
    "metrics.strata": Key(
        TEXTS, "columns of the data set's table to report apart, such as site; many numbers by quarters"
    ),
    # postprocess
    "postprocess.largest": Key(BOOL, "keep the largest component of each class"),
    "postprocess.min_ml": Key(NUMBER, "drop components smaller than this, in ml", "[0, inf)"),
    "postprocess.min_voxels": Key(INT, "drop components smaller than this, in voxels", "[0, inf)"),
    "postprocess.fill_holes": Key(BOOL, "fill holes enclosed by a class"),
    "postprocess.smooth_mm": Key(NUMBER, "width of border smoothing, in mm", "[0, inf)"),
    "postprocess.classes": Key(MAPPING, "of single classes or regions their own of these, smoothing excepted"),
}

_PROBABILITY = Key(NUMBER, "share of the samples that it changes", "[0, 1]")
_CHANNEL_PROBABILITY = Key(NUMBER, "share of the channels of these samples that it changes", "[0, 1]")
_RANGE = Key(NUMBERS, "[low, high] to draw from", "(0, inf)")
_WARMUP = Key(NUMBER, "share of the run over which the rate rises", "[0, 1)")
_BATCH = Key(BOOL, "sum over the batch too")
_INCLUDE_BACKGROUND = Key(BOOL, "count the background as a class")
_CLASS_WEIGHTS = Key(NUMBERS, "the weight of each output channel", "[0, inf)", null="all are equal")
_DIMS = Key(INT, "dimensions of the images", (2, 3), null=PLANNED)

_NETWORK = {
    "spatial_dims": _DIMS,
    "in_channels": KEYS["plan.in_channels"],
    "out_channels": KEYS["plan.out_channels"],
}
_BASE = Key(INT, "channels of the finest level", "[1, inf)", null=PLANNED)
_CAP = Key(INT, "cap on the channels of a level", "[1, inf)", null="320 in 3D, 512 in 2D")
_HALVINGS = Key(INT, "how often every axis is halved", "[1, 7]", null=PLANNED)
_INPUT = Key(INTS, "voxels of a patch along each axis", "[1, inf)", null=PLANNED)
_PRETRAINED, _RANDOM = "published weights to begin with", "random ones"
_NORMALIZE = Key(
    TEXTS, "how the images are normalised, for weights that expect another scale", NORMALISATIONS, null=PLANNED
)
_DEEP = Key(BOOL, "a loss on several decoder levels")

ARGUMENTS: dict[str, dict[str, Key]] = {
    "medseg.models.UNet": {
        **_NETWORK,
        "depth": Key(INT, "number of poolings; depth 4 has five levels", "[1, 7]", null=PLANNED),
        "base_channels": Key(INT, "channels of the finest level, doubled per level", "[1, inf)", null=PLANNED),
        "max_channels": _CAP,
        "channels": Key(INTS, "channels of each level", "[1, inf)", null="base_channels, doubled per level to the cap"),
        "strides": KEYS["plan.strides"],
        "kernel_sizes": KEYS["plan.kernel_sizes"],
        "blocks": Key(INT_OR_INTS, "convolutions, or residual blocks, of each encoder stage", "[1, 64]"),
        "decoder_blocks": Key(INT_OR_INTS, "convolutions of each decoder stage", "[1, 64]"),
        "norm": Key(TEXT, "normalisation", ("instance", "batch", "group", "none")),
        "activation": Key(TEXT, "activation", ("leaky_relu", "relu", "gelu", "silu")),
        "dropout": Key(NUMBER, "share of the feature maps dropped", "[0, 1)"),
        "residual": Key(BOOL, "residual blocks in the encoder"),
        "downsampling": Key(TEXT, "how a level halves the map", ("max_pool", "strided")),
        "deep_supervision": Key(BOOL, "a loss on every decoder level"),
    },
    "medseg.models.monai.dynunet": {
        **_NETWORK,
        "depth": Key(INT, "number of strided levels", "[2, 7]", null=PLANNED),
        "base_channels": _BASE,
        "max_channels": _CAP,
        "strides": KEYS["plan.strides"],
        "kernel_sizes": KEYS["plan.kernel_sizes"],
        "deep_supervision": _DEEP,
    },
    "medseg.models.monai.segresnet": {
        **_NETWORK,
        "depth": _HALVINGS,
        "base_channels": _BASE,
        "input_size": _INPUT,
        "blocks": Key(INT_OR_INTS, "residual blocks of each encoder level", "[1, 64]"),
        "pretrained": Key(
            TEXT,
            "published weights to begin with",
            ("brats_mri", "wholebody_ct", "wholebody_ct_3mm"),
            null=_RANDOM,
        ),
        "weights": KEYS["model.weights"],
        "normalize": _NORMALIZE,
    },
    "medseg.models.monai.attention_unet": {
        **_NETWORK,
        "depth": Key(INT, "number of strided levels", "[1, 7]", null=PLANNED),
        "base_channels": Key(INT, "channels of the finest level", "[2, inf)", null=PLANNED),
        "max_channels": _CAP,
        "strides": KEYS["plan.strides"],
    },
    "medseg.models.monai.basic_unet_plus_plus": {**_NETWORK, "base_channels": _BASE, "deep_supervision": _DEEP},
    "medseg.models.monai.unetr": {**_NETWORK, "base_channels": _BASE, "input_size": _INPUT},
    "medseg.models.monai.swin_unetr": {
        **_NETWORK,
        "base_channels": Key(
            INT, "channels of the finest level, a multiple of 12", "[12, inf)", null="24, or as the weights have it"
        ),
        "input_size": _INPUT,
        "pretrained": Key(TEXT, _PRETRAINED, ("swinvit", "dae", "btcv"), null=_RANDOM),
        "weights": KEYS["model.weights"],
        "normalize": _NORMALIZE,
    },
    "medseg.models.monai.mednext": {
        **_NETWORK,
        "depth": _HALVINGS,
        "base_channels": _BASE,
        "input_size": _INPUT,
        "kernel_size": Key(INT, "size of the depthwise convolutions", (3, 5, 7)),
        "blocks": Key(INT_OR_INTS, "blocks of each level above the bottom", "[1, 64]"),
        "expansion": Key(INT_OR_INTS, "how much wider the blocks of each level are inside", "[1, inf)"),
        "deep_supervision": _DEEP,
    },
    "medseg.models.monai.flexible_unet": {
        **_NETWORK,
        "base_channels": _BASE,
        "input_size": _INPUT,
        "backbone": Key(TEXT, "encoder: efficientnet-b0 to -b8, -l2, or resnet10, 18, 34, 50, 101, 152, 200"),
        "pretrained": Key(TEXT, _PRETRAINED, ("imagenet", "medicalnet"), null=_RANDOM),
        "weights": KEYS["model.weights"],
        "normalize": _NORMALIZE,
    },
    "medseg.models.monai.vnet": {**_NETWORK, "input_size": _INPUT},
    "medseg.training.losses.DiceLoss": {
        "squared": Key(BOOL, "squares in the denominator"),
        "batch": _BATCH,
        "include_background": _INCLUDE_BACKGROUND,
        "class_weights": _CLASS_WEIGHTS,
    },
    "medseg.training.losses.TverskyLoss": {
        "alpha": Key(NUMBER, "weight of false positives", "(0, inf)"),
        "beta": Key(NUMBER, "weight of false negatives", "(0, inf)"),
        "batch": _BATCH,
        "include_background": _INCLUDE_BACKGROUND,
        "class_weights": _CLASS_WEIGHTS,
    },
    "medseg.training.losses.GeneralizedDiceLoss": {
        "batch": _BATCH,
        "include_background": _INCLUDE_BACKGROUND,
        "class_weights": _CLASS_WEIGHTS,
    },
    "medseg.training.losses.CenterlineDiceLoss": {
        "iterations": Key(INT, "erosions, at least the largest radius of a tube in voxels", "[1, inf)"),
        "batch": _BATCH,
        "include_background": _INCLUDE_BACKGROUND,
        "class_weights": _CLASS_WEIGHTS,
    },
    "medseg.training.losses.CrossEntropyLoss": {
        "label_smoothing": Key(NUMBER, "share of the target spread over all classes", "[0, 1)"),
        "class_weights": _CLASS_WEIGHTS,
    },
    "medseg.training.losses.FocalLoss": {
        "gamma": Key(NUMBER, "the more, the less the easy voxels count; 0 is cross-entropy", "[0, inf)"),
        "class_weights": _CLASS_WEIGHTS,
    },
    "medseg.training.losses.TopKLoss": {
        "k": Key(NUMBER, "percentage of the voxels that count, the hardest ones", "(0, 100]"),
        "class_weights": _CLASS_WEIGHTS,
    },
    "medseg.training.losses.OnProbabilities": {"include_background": _INCLUDE_BACKGROUND},
    "medseg.training.losses.WeightedSum": {
        "weights": Key(NUMBERS_BY_NAME, "the weight of each loss by its name", "[0, inf)")
    },
    "medseg.training.optim.schedules.Polynomial": {
        "power": Key(NUMBER, "exponent of the decay", "(0, inf)"),
        "warmup": _WARMUP,
    },
    "medseg.training.optim.schedules.Cosine": {
        "final": Key(NUMBER, "share of the rate that is left at the end", "[0, 1]"),
        "warmup": _WARMUP,
    },
    "medseg.training.optim.schedules.Constant": {"warmup": _WARMUP},
    "medseg.augmentation.Spatial": {
        "rotation": Key(NUMBER, "largest rotation, in degrees", "[0, 180]", null="nnU-Net's rule"),
        "rotation_probability": Key(NUMBER, "share of the samples that are rotated", "[0, 1]"),
        "scale": Key(NUMBERS, "[low, high] of the magnification", "(0, inf)"),
        "scale_probability": Key(NUMBER, "share of the samples that are scaled", "[0, 1]"),
        "elastic_magnitude": Key(NUMBERS, "[low, high] displacement, as a share of elastic_scale", "[0, 0.4]"),
        "elastic_scale": Key(NUMBER, "distance of control points, as a share of the longest axis", "(0, 1]"),
        "elastic_probability": Key(NUMBER, "share of the samples that are deformed", "[0, 1]"),
        "mirror_axes": KEYS["plan.mirror_axes"],
        "spacing": KEYS["preprocessing.spacing"],
    },
    "medseg.augmentation.BlockMasking": {
        "share": Key(NUMBER, "share of the blocks that are hidden", "(0, 1)"),
        "block": Key(INT_OR_INTS, "voxels of a block along each axis", "[1, inf)", null=PLANNED),
    },
    "medseg.augmentation.Genesis": {
        "nonlinear_probability": Key(NUMBER, "share of the samples whose intensities are bent", "[0, 1]"),
        "shuffling_probability": Key(NUMBER, "share of those whose voxels are shuffled in small windows", "[0, 1]"),
        "painting_probability": Key(NUMBER, "share of those of which parts are replaced by noise", "[0, 1]"),
        "outpainting_share": Key(NUMBER, "share of these that keep windows alone, not what is round them", "[0, 1]"),
    },
    "medseg.augmentation.Noise": {
        "probability": _PROBABILITY,
        "std": Key(NUMBER, "largest standard deviation of the noise", "[0, inf)"),
    },
    "medseg.augmentation.Blur": {
        "probability": _PROBABILITY,
        "channel_probability": _CHANNEL_PROBABILITY,
        "sigma": _RANGE,
    },
    "medseg.augmentation.Brightness": {"probability": _PROBABILITY, "factor": _RANGE},
    "medseg.augmentation.Contrast": {"probability": _PROBABILITY, "factor": _RANGE},
    "medseg.augmentation.LowResolution": {
        "probability": _PROBABILITY,
        "channel_probability": _CHANNEL_PROBABILITY,
        "scale": Key(NUMBERS, "[low, high] share of the voxels along each axis", "(0, 1]"),
    },
    "medseg.augmentation.Gamma": {
        "probability": _PROBABILITY,
        "gamma": _RANGE,
        "invert": Key(BOOL, "bend the bright end rather than the dark one"),
    },
    "medseg.io.layouts.phantom": {
        "root": KEYS["dataset.root"],
        "dims": KEYS["dataset.dims"],
        "channels": KEYS["dataset.n_channels"],
        "cases": KEYS["dataset.cases"],
        "size": KEYS["dataset.size"],
        "seed": KEYS["dataset.seed"],
    },
    "medseg.io.layouts.folder": {
        "root": KEYS["dataset.root"],
        "images": KEYS["dataset.images"],
        "masks": KEYS["dataset.masks"],
        "channels": KEYS["dataset.channels"],
        "mask_endings": KEYS["dataset.mask_endings"],
        "class_masks": KEYS["dataset.class_masks"],
        "missing_masks": KEYS["dataset.missing_masks"],
    },
    "medseg.io.layouts.table": {
        "root": KEYS["dataset.root"],
        "table": KEYS["dataset.table"],
        "image_columns": KEYS["dataset.image_columns"],
        "label_columns": KEYS["dataset.label_columns"],
        "class_columns": KEYS["dataset.class_columns"],
        "missing_masks": KEYS["dataset.missing_masks"],
    },
    "medseg.io.layouts.nnunet": {"root": KEYS["dataset.root"]},
    "medseg.io.layouts.brats": {"root": KEYS["dataset.root"], "generation": KEYS["dataset.generation"]},
    "medseg.io.layouts.decathlon": {"root": KEYS["dataset.root"]},
}

OBJECTS = (
    *("model", "pretext", "loss", "optimizer", "scheduler", "logger", "dataset.layout"),
    *("augment.spatial", "augment.intensity", "augment.transforms"),
)
"""The keys that hold an object, or a list of them. Nowhere else may a config from a file have a ``_target_``."""

WITH_OBJECTS = ("medseg.training.losses.WeightedSum", "medseg.training.losses.OnProbabilities")
"""medseg's own targets that take objects of their own kind as arguments."""

OPEN = ("medseg.models.monai.",)
"""Beginnings of medseg's own targets that hand on arguments which the table does not hold, to another package."""

FROM_CHECKPOINT = ("dataset.", "inference.", "postprocess.", "split.", "precision")
"""Beginnings of the keys that eval and predict take from the checkpoint where they are null."""
