"""Writing a model, or an ensemble of models of one grid, as an ONNX file that says all that prediction must know."""

import json
import logging
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medseg import __version__
from medseg.config.instantiate import build
from medseg.errors import MedsegError, first_line
from medseg.inference.checkpoint import FORMAT
from medseg.inference.onnx.runtime import ENTRY, INPUT, OUTPUT, OnnxNetwork, graph_shapes, require
from medseg.inference.trained_model import Model
from medseg.models.slices import as_list
from medseg.system.memory import NotEnoughMemoryError, enough_memory

OPSET = 20
"""The version of ONNX's operators, which onnxruntime reads from 1.17 on."""

MOST_BYTES = 2_000_000_000
"""Weights that one file holds: protobuf ends at 2 GiB."""


class Ensemble(nn.Module):
    """What is exported: patches to the finest logits, of one network or of the mean probabilities of several.

    Logits of a mean: those whose softmax, or for regions sigmoid, is the mean of the networks' probabilities. So a
    file of several networks is used as one of a single network is. No logit is infinite.
    """

    def __init__(self, networks: Sequence[nn.Module], *, regions: bool) -> None:
        super().__init__()
        self.networks, self.regions = nn.ModuleList(networks), regions

    def forward(self, patches: Tensor) -> Tensor:
        """(B, C, *patch) -> logits (B, K, *patch)."""
        outputs = [as_list(network(patches), patches)[0] for network in self.networks]
        if len(outputs) == 1:
            return outputs[0]
        each = torch.stack(outputs)  # (networks, B, K, *patch)
        if not self.regions:
            return each.log_softmax(2).logsumexp(0)  # the log of the sum of probabilities
        return (-F.softplus(-each)).logsumexp(0) - (-F.softplus(each)).logsumexp(0)  # log p - log (1 - p)


def write_onnx(models: Sequence[Model], path: Path, trust: Collection[str] = ()) -> None:
    """Write the networks' graph in fp32, their weights, and the description, into one file.

    ``trust`` names networks that may be built beside medseg's own.

    Raises:
        MedsegError: models that one file cannot hold, a network that cannot be exported, or packages that are missing.
    """
    require("onnx", "onnxscript", "onnxruntime")
    import onnx
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    check_models(models)
    program = traced(models, trust)
    ClearMetadataAndDocStringPass()(program.model)  # it names source files of this machine
    file = program.model_proto
    file.producer_name, file.producer_version = "medseg", __version__
    content = described(models[0])
    description = {
        **content,
        "format": FORMAT,
        "config": {**content["config"], "trainer": {"precision": "fp32"}},
        "models": len(models),
        "activation": "sigmoid" if models[0].label_map.regions else "softmax",
    }
    onnx.helper.set_model_props(file, {ENTRY: json.dumps(description, ensure_ascii=False)})
    onnx.save(file, path)
    onnx.checker.check_model(path, full_check=True)


def traced(models: Sequence[Model], trust: Collection[str]) -> Any:
    """Return the networks as a ``torch.onnx.ONNXProgram``, for batches of any size.

    Raises:
        MedsegError: the exporter cannot follow a network's code.
    """
    networks = [without_extra_heads(model, trust) for model in models]
    network = Ensemble(networks, regions=bool(models[0].label_map.regions)).eval()
    try:
        with enough_memory("to export the network", "Use a machine with more memory."), quiet_exporter():
            return torch.onnx.export(
                network,
                (torch.zeros(2, *graph_shapes(models[0])[0]),),  # of a batch of one it would make a constant
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
    except NotEnoughMemoryError:
        raise
    except Exception as error:  # whatever a network's own code raises under the exporter
        names = sorted({described(model)["config"]["model"]["_target_"] for model in models})
        reason = first_line(error.__cause__ if isinstance(error.__cause__, Exception) else error)
        raise MedsegError(f"{' or '.join(names)} cannot be exported to ONNX: {reason}") from error


def without_extra_heads(model: Model, trust: Collection[str]) -> nn.Module:
    """Return a model's network without the heads of deep supervision, which MONAI's DynUNet runs in prediction too."""
    spec = described(model)["config"]["model"]
    if not spec.get("deep_supervision"):
        return model.network
    network: nn.Module = build({**spec, "deep_supervision": False}, "model", trust)
    weights = model.network.state_dict()
    if not network.state_dict().keys() <= weights.keys():
        return model.network  # a network of the user's own, whose word means another thing
    network.load_state_dict({name: weights[name] for name in network.state_dict()})
    return network


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Silence what PyTorch's exporter says of itself: of torchvision, which is not there, and of its own old code."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(level)


def described(model: Model) -> dict[str, Any]:
    """Return the description of one of medseg's own models."""
    assert model.description is not None
    return model.description


def check_models(models: Sequence[Model]) -> None:
    """Check that one file can hold the models.

    Raises:
        MedsegError: one is not read from a checkpoint of medseg, they do not see the same windows of the same image, or
            their weights are too large.
    """
    for model in models:
        if model.description is None:
            raise MedsegError(f"{model.path}: only medseg's own checkpoints can be exported.")
        if isinstance(model.network, OnnxNetwork):
            raise MedsegError(f"{model.path}: an ONNX file already. Export the checkpoints that it was made of.")
        if model.first_stage:
            raise MedsegError(
                f"{model.path}: a model of two stages, and an ONNX file holds one network. Predict with the checkpoint."
            )
    seen = []  # by its name in the config, what decides how a model goes over an image
    for model in models:
        config = described(model)["config"]
        plan = {f"plan.{name}": config["plan"][name] for name in ("patch_size", "slice_axis", "context", "mirror_axes")}
        windows = {f"inference.{name}": config["inference"][name] for name in ("overlap", "tta")}
        seen.append({"preprocessing": model.preprocessor.config, **plan, **windows})
        for name, value in seen[-1].items():
            if value != seen[0][name]:
                raise MedsegError(
                    f"one file holds models of the same {name} only.\n{models[0].path}: {seen[0][name]}\n"
                    f"{model.path}: {value}\nExport each to a file of its own: predict averages them too, with "
                    "checkpoint=[a.onnx,b.onnx]."
                )
    size = sum(4 * value.numel() for model in models for value in model.network.state_dict().values())
    if size > MOST_BYTES:
        raise MedsegError(
            f"{size / 1e9:.1f} GB of weights do not fit into one ONNX file of at most {MOST_BYTES / 1e9:g} GB. Export "
            "fewer models to each file: predict averages several files too."
        )


def summary(path: Path) -> str:
    """Say what a file holds: its size, the version of its operators, and what it maps to what."""
    import onnx

    file = onnx.load(path, load_external_data=False)
    maps = []
    for value in (*file.graph.input, *file.graph.output):  # the batch's axis by its name
        axes = (axis.dim_param or str(axis.dim_value) for axis in value.type.tensor_type.shape.dim)
        maps.append(f"{value.name} ({', '.join(axes)})")
    megabytes, opset = path.stat().st_size / 1e6, file.opset_import[0].version
    return f"{megabytes:.1f} MB, opset {opset}, {' to '.join(maps)}, float32"
