"""A trained network with all that prediction must know of it, whatever kind of file it was read from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from medseg.config.schema import typed
from medseg.config.settings import InferenceSettings, NetworkPlan, PostprocessSettings
from medseg.errors import MedsegError
from medseg.inference.checkpoint import Checkpoint
from medseg.inference.probabilities import Scorer
from medseg.inference.sliding_window import Weighting, gaussian
from medseg.io.case import Scan
from medseg.io.labels import LabelMap
from medseg.io.limits import check_memory
from medseg.models.slices import context_in_volume, logits_of, patch_in_volume
from medseg.preprocessing.geometry import Geometry
from medseg.preprocessing.preprocessor import Preprocessor


class Preparation(Protocol):
    """What brings a scan to a network's grid: ``medseg.preprocessing.Preprocessor``, or another program's ways."""

    @property
    def n_channels(self) -> int:
        """Channels that a scan must have."""

    @property
    def added_channels(self) -> int:
        """Channels that the image on the network grid has beside the scan's."""

    @property
    def config(self) -> dict[str, Any]:
        """Plain containers, equal for two that do the same."""

    def __call__(self, scan: Scan) -> tuple[Tensor, Geometry]:
        """Return the scan on the network grid, float32 (C, *network grid), and the way back."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """What a checkpoint, or a trained model of another program, is read as.

    Args:
        path: where it was read from.
        network: holds the weights.
        logits: patches (B, C, *patch) to logits (B, K, *patch), finest first.
        preprocessor: scans to the network grid.
        patch_size: of a window on the network grid.
        context: voxels along each axis that the network sees beside a window; None: none.
        mirror_axes: network axes that it was trained to be mirrored along.
        averaging: what is averaged over windows, flips and models.
        weighting: gives the weights of a window's voxels.
        label_map: the classes and regions that it knows.
        endings: file-name endings of the channels where each has a file of its own.
        may_lack: whether it was trained to do without some of its channels.
        reading: ``geometry``, ``reference`` and ``orientation``: how channels on other grids and pictures that are
            turned by their EXIF are read (see ``Case``).
        precision: the arithmetic that it was trained in.
        inference: overlap, tta, threshold and batch_size where the user gives none.
        postprocess: likewise.
        largest_of: what other programs' models bring beside it (see ``Segmenter``); None: nothing.
        description: what ``checkpoint["medseg"]`` holds of it; None: it is another program's.
        training_data: what scans were like that it was trained on (see ``medseg.inference.out_of_distribution``); None:
            unknown.
        first_stage: coarse models whose result its preprocessor uses (see ``medseg.inference.first_stage``).
    """

    path: Path
    network: nn.Module
    logits: Callable[[Tensor], list[Tensor]]
    preprocessor: Preparation
    patch_size: Sequence[int]
    context: Sequence[int] | None = None
    mirror_axes: Sequence[int] = ()
    averaging: Literal["probabilities", "logits"] = "probabilities"
    weighting: Weighting = gaussian
    label_map: LabelMap
    endings: Sequence[Sequence[str]] | None = None
    may_lack: bool = False
    reading: dict[str, Any] = field(
        default_factory=lambda: {"geometry": "error", "reference": 0, "orientation": "apply"}
    )
    precision: str = "auto"
    inference: InferenceSettings
    postprocess: PostprocessSettings
    largest_of: Sequence[Sequence[int]] | None = None
    description: dict[str, Any] | None = None
    training_data: dict[str, Any] | None = None
    first_stage: Sequence["Model"] = ()

    def __post_init__(self) -> None:
        """Refuse a window that no memory holds, and flips of which there is no end.

        Raises:
            MedsegError: as said.
        """
        count = max(self.preprocessor.n_channels + self.preprocessor.added_channels, len(self.label_map.outputs))
        check_memory(f"{self.path}: a window of its network is an array", (count, *self.patch_size))
        axes = list(self.mirror_axes)
        if not {*axes} <= {*range(len(self.patch_size))} or len({*axes}) < len(axes):
            raise MedsegError(f"{self.path}: mirrored along the axes {axes}: there may be each axis of a window once.")

    @property
    def networks(self) -> list[nn.Module]:
        """Its own network, and those of its first stage."""
        return [self.network, *(model.network for model in self.first_stage)]

    @property
    def grid(self) -> tuple[Any, ...]:
        """What must be equal for models to go over a scan together, window by window."""
        context = tuple(self.context or ())
        return (
            self.preprocessor.config,
            tuple(self.patch_size),
            context,
            tuple(self.mirror_axes),
            self.averaging,
            self.weighting,
        )


def model_of(checkpoint: Checkpoint, network: nn.Module) -> Model:
    """Return the model that a checkpoint describes, with its network."""
    config = checkpoint.content["config"]
    plan = typed(NetworkPlan, config["plan"])
    return Model(
        path=checkpoint.path,
        network=network,
        logits=logits_of(network, plan),
        preprocessor=Preprocessor(**config["preprocessing"]),
        patch_size=patch_in_volume(plan),
        context=context_in_volume(plan),
        mirror_axes=plan.mirror_axes,
        label_map=checkpoint.label_map,
        endings=checkpoint.content["channels"],
        may_lack=drops_channels(config.get("augment") or {}),
        reading={
            **{name: config["dataset"][name] for name in ("geometry", "reference")},
            "orientation": config["dataset"].get("orientation", "apply"),  # which older checkpoints lack
        },
        precision=config["trainer"]["precision"],
        inference=typed(InferenceSettings, config["inference"]),
        postprocess=typed(PostprocessSettings, config["postprocess"]),
        description=checkpoint.content,
        training_data=checkpoint.content.get("training_data"),  # which older ones lack
    )


def drops_channels(augment: dict[str, Any]) -> bool:
    """Tell whether a network was trained with channels left out at random."""
    specs = [
        spec for spec in augment.get("intensity") or () if spec["_target_"] == "medseg.augmentation.ChannelDropout"
    ]
    return any(spec.get("probability", 1) > 0 and spec.get("channel_probability", 1) > 0 for spec in specs)


def scorer_of(model: Model, inference: InferenceSettings) -> Scorer:
    """Return how a model makes probabilities."""
    # of a picture mirrored copies cost little, and gain more than chance (docs/development/measurements.md)
    is_mirrored = len(model.patch_size) == 2 if inference.tta is None else inference.tta
    return Scorer(
        patch_size=model.patch_size,
        n_outputs=len(model.label_map.outputs),
        regions=bool(model.label_map.regions),
        overlap=inference.overlap,
        batch_size=inference.batch_size,
        mirror_axes=model.mirror_axes if is_mirrored else (),
        context=model.context,
        averaging=model.averaging,
        weighting=model.weighting,
    )


def make_scorer(plan: NetworkPlan, inference: InferenceSettings, label_map: LabelMap) -> Scorer:
    """Return how a network that is in training makes probabilities."""
    return Scorer(
        patch_size=patch_in_volume(plan),
        n_outputs=len(label_map.outputs),
        regions=bool(label_map.regions),
        overlap=inference.overlap,
        batch_size=inference.batch_size,
        mirror_axes=plan.mirror_axes if inference.tta else (),
        context=context_in_volume(plan),
    )
