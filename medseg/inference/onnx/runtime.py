"""ONNX files that ``medseg export`` wrote, read as models: the graph takes the place of the network."""

import json
import logging
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medseg.errors import MedsegError, first_line
from medseg.inference.checkpoint import Checkpoint, checked
from medseg.inference.trained_model import Model, model_of
from medseg.io.limits import check_memory
from medseg.models.weight_checks import check_finite
from medseg.system.memory import NotEnoughMemoryError, enough_memory

log = logging.getLogger(__name__)

INPUT, OUTPUT = "image", "logits"
ENTRY = "medseg"
"""The key of the file's metadata under which the description lies, as JSON: see ``docs/how-to/export.md``."""

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxNetwork(nn.Module):
    """A network that onnxruntime computes, in fp32: patches (B, C, *patch) to logits (B, K, *patch).

    It computes where its patches lie, as far as onnxruntime can, and otherwise on the CPU.

    Raises:
        MedsegError: onnxruntime is not installed, or cannot read the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.device = path, torch.device("cpu")
        self.session, self.session_device = open_session(path, self.device)
        self.says_precision = True

    @property
    def metadata(self) -> dict[str, str]:
        """What the file says of itself."""
        return self.session.get_modelmeta().custom_metadata_map

    @property
    def shapes(self) -> tuple[list[int], list[int]]:
        """Shapes of one input and of its output, without the batch: (C, *patch) and (K, *patch)."""
        (image,), (logits,) = self.session.get_inputs(), self.session.get_outputs()
        return image.shape[1:], logits.shape[1:]

    def forward(self, patches: Tensor) -> Tensor:
        """(B, C, *patch) -> logits (B, K, *patch), float32."""
        if patches.device != self.device:
            self.session, self.session_device = open_session(self.path, patches.device)
            self.device = patches.device
        if self.says_precision and torch.is_autocast_enabled(patches.device.type):
            log.warning("%s: ONNX files compute in fp32, whatever the precision", self.path)
            self.says_precision = False
        image = patches.to(self.session_device, torch.float32).contiguous()
        logits = torch.empty((len(image), *self.shapes[1]), device=self.session_device)
        if image.is_cuda:
            torch.cuda.synchronize(image.device)  # onnxruntime has a stream of its own
        binding = self.session.io_binding()  # it reads and writes the tensors where they lie
        for bind, name, x in ((binding.bind_input, INPUT, image), (binding.bind_output, OUTPUT, logits)):
            bind(name, x.device.type, x.device.index or 0, "float32", tuple(x.shape), x.data_ptr())
        self.session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return logits.to(patches.device)


def open_session(path: Path, device: torch.device) -> tuple[Any, torch.device]:
    """Return an onnxruntime session for a device, and the device that it computes on.

    Raises:
        MedsegError: onnxruntime is not installed, or cannot read the file.
    """
    require("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors; its warnings are about its own optimisations
    provider = PROVIDERS.get(device.type)
    available = onnxruntime.get_available_providers()
    providers = [
        (name, {"device_id": device.index or 0} if name == PROVIDERS["cuda"] else {})
        for name in dict.fromkeys((provider, PROVIDERS["cpu"]))
        if name in available
    ]
    try:
        with enough_memory(f"on {device} to load {path}", "Try device=cpu, or a machine with more memory."):
            session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except NotEnoughMemoryError:
        raise
    except Exception as error:  # onnxruntime's errors have no common class
        raise MedsegError(f"{path}: not an ONNX file that can be run ({first_line(error)}).") from error
    if session.get_providers()[0] == provider:
        return session, device
    log.warning(
        "%s: onnxruntime cannot use %s here, so it computes on the CPU%s",
        path,
        device,
        "; for a GPU install onnxruntime-gpu in the place of onnxruntime" if device.type == "cuda" else "",
    )
    return session, torch.device("cpu")


def require(*packages: str) -> None:
    """Import packages of the extra ``onnx``.

    Raises:
        MedsegError: one is not installed.
    """
    for name in packages:
        try:
            import_module(name)
        except ImportError as error:
            raise MedsegError(f"ONNX files need {name}, which is not here: pip install 'medseg[onnx]'") from error


def read_onnx(path: Path) -> Model:
    """Read an ONNX file of medseg as a model.

    Raises:
        MedsegError: onnxruntime is not installed, or the file is damaged, not medseg's, of a newer format, or holds
            weights of NaN.
    """
    check_finite(path, checked_weights(path))
    network = OnnxNetwork(path)
    try:
        content = json.loads(network.metadata.get(ENTRY, "null"))
    except (ValueError, RecursionError) as error:
        raise MedsegError(f"{path}: its metadata is damaged ({error}).") from error
    model = model_of(Checkpoint(path, checked(content, path, "an ONNX file"), {}), network)
    expected = graph_shapes(model)
    if network.shapes != expected:
        raise MedsegError(
            f"{path}: its graph does not fit its own description: it maps {network.shapes[0]} to {network.shapes[1]}, "
            f"where {expected[0]} to {expected[1]} is described."
        )
    return model


def checked_weights(path: Path) -> dict[str, Tensor]:
    """Check that the graph of an ONNX file is no more than the layers of a network, and return its weights.

    More are loops and branches, functions, weights in other files, and arrays larger than ``read.max_gb``, as far as
    their shapes can be inferred. Without the package ``onnx``, which reads graphs, nothing is checked and no weights
    are returned: onnxruntime shows none. Infinity in weights is replaced: graphs hold it as a bound or a mask. What
    comes of it is seen in the output.

    Raises:
        MedsegError: the graph is more than that.
    """
    if find_spec("onnx") is None:
        return {}
    import onnx

    try:
        file = onnx.load(path, load_external_data=False)
        inferred = onnx.shape_inference.infer_shapes(file, data_prop=True)
    except Exception as error:  # onnx's errors have no common class
        raise MedsegError(f"{path}: not an ONNX file that can be run ({first_line(error)}).") from error
    graphs = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
    refused = [node.op_type for node in file.graph.node if any(each.type in graphs for each in node.attribute)]
    refused += [function.name for function in file.functions]
    refused += [each.name for each in file.graph.initializer if each.data_location == onnx.TensorProto.EXTERNAL]
    if refused or file.graph.sparse_initializer:
        raise MedsegError(
            f"{path}: not a graph of medseg's: it has loops, branches, functions, or weights that lie elsewhere"
            f" ({', '.join(sorted({*refused})[:5]) or 'sparse weights'}). Export the checkpoint again: medseg export."
        )
    for value in inferred.graph.value_info:
        shape = [axis.dim_value for axis in value.type.tensor_type.shape.dim if axis.HasField("dim_value")]
        check_memory(f"{path}: its graph makes an array", shape)
    arrays = {each.name: onnx.numpy_helper.to_array(each) for each in file.graph.initializer}
    return {
        name: torch.from_numpy(np.nan_to_num(np.atleast_1d(array), nan=np.nan))
        for name, array in arrays.items()
        if array.dtype in (np.float16, np.float32, np.float64)
    }


def graph_shapes(model: Model) -> tuple[list[int], list[int]]:
    """Return what a model's network maps to what, without the batch: [C, *patch] to [K, *patch].

    A 2D network on volumes takes slices, with their neighbours as further channels.
    """
    assert model.description is not None  # of medseg's own models
    plan = model.description["config"]["plan"]
    channels = model.preprocessor.n_channels * (2 * plan["context"] + 1)
    return [channels, *plan["patch_size"]], [len(model.label_map.outputs), *plan["patch_size"]]
