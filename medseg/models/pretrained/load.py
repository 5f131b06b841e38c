"""Published weights put into a network: read, renamed, and made to fit its channels and dimensions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from medseg.errors import MedsegError, listing
from medseg.models.pretrained.catalogue import Published, published
from medseg.models.weight_checks import check_finite, weights_in
from medseg.system.torch_files import load_safely


def load_published(networks: Sequence[nn.Module], model: dict[str, Any], file: Path) -> list[str]:
    """Put the weights of ``model.pretrained`` into networks of a ``model`` node; return lines that say what was done.

    Raises:
        MedsegError: the file cannot be read safely, or holds other weights.
    """
    weights = published(model)
    if weights is None:
        return []
    state = read_weights(file)
    for network in networks:
        loaded = fitted(network, weights, state, f"model.pretrained={model['pretrained']}, {file}")
        network.load_state_dict(network.state_dict() | loaded)
    return report(networks[0], model, weights, loaded)


def read_weights(file: Path) -> dict[str, Tensor]:
    """Return the weights of a PyTorch file by their names without the ``module.`` of several GPUs; runs no code of it.

    Raises:
        MedsegError: the file cannot be read, or not without running code, or holds no weights or some that are not
            finite.
    """
    weights = {name.removeprefix("module."): value for name, value in weights_in(load_safely(file)).items()}
    if not weights:
        raise MedsegError(f"{file}: a PyTorch file, but without weights by name.")
    check_finite(file, weights)
    return weights


def names_in(network: nn.Module, weights: Published) -> list[str]:
    """Return the names of what a network has of published weights, counters and tables of indices included."""
    names = (name for name in network.state_dict() if name.startswith(weights.part))
    return [name for name in names if not name.startswith(weights.head)]


def fitted(network: nn.Module, weights: Published, state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return the values of a file under the network's names and in its shapes.

    Args:
        network: as ``weights`` and its own channels and dimensions make it.
        weights: what the file is.
        state: the file's values by its own names.
        source: how errors name the file.

    Raises:
        MedsegError: values are missing, or of other shapes than channels and dimensions explain.
    """
    loaded, wrong, ours = {}, [], network.state_dict()
    for name in names_in(network, weights):
        theirs, value = weights.theirs(name), ours[name]
        if theirs not in state:
            if value.is_floating_point():  # counters and tables of indices, which older files lack, need no training
                wrong.append(f"{name}: the file has no {theirs}")
            continue
        weight = state[theirs]
        if weight.ndim == 4 and value.ndim == 5:
            weight = inflated(weight, value.shape[-1])
        if name in weights.stems and weight.ndim == value.ndim:
            weight = folded(weight, value.shape[1])
        if weight.shape != value.shape:
            wrong.append(f"{name}: {tuple(state[theirs].shape)} in the file, {tuple(value.shape)} here")
        else:
            loaded[name] = weight.to(value.dtype)
    if wrong:
        raise MedsegError(
            f"{source}: this file does not hold these weights, or the network has another form; {len(wrong)} of "
            f"{len(loaded) + len(wrong)} do not fit:\n{listing(wrong, most=5)}\n"
            f"The file's names begin with {next(iter(state))}."
        )
    return loaded


def inflated(weight: Tensor, depth: int) -> Tensor:
    """Turn a kernel (out, in, k, k) into (out, in, k, k, depth) that gives the same for volumes constant in depth.

    It is repeated along the new axis and divided by the depth: Carreira & Zisserman, "Quo Vadis, Action Recognition?"
    (CVPR 2017, arXiv 1705.07750).
    """
    return weight.unsqueeze(-1).expand(*weight.shape, depth) / depth


def folded(weight: Tensor, channels: int) -> Tensor:
    """Turn a kernel (out, in, *k) into (out, channels, *k) that gives the same where all channels are equal.

    Each channel gets the mean over the old ones, times their number over the new one; as many channels keep theirs.
    """
    old = weight.shape[1]
    if old == channels:
        return weight
    return weight.float().mean(1, keepdim=True).expand(-1, channels, *weight.shape[2:]) * (old / channels)


def report(network: nn.Module, model: dict[str, Any], weights: Published, loaded: dict[str, Tensor]) -> list[str]:
    """Return lines that say how much was loaded, what became of the first convolution, and how images are scaled."""
    sizes = {name: value.numel() for name, value in network.named_parameters()}
    share = sum(size for name, size in sizes.items() if name in loaded) / sum(sizes.values())
    part = f"all of {weights.part.rstrip('.')}" if weights.part else "all but the head"
    lines = [f"weights: {model['pretrained']} for {share:.0%} of the network, {part}"]
    old, new, names = len(weights.channels), model["in_channels"], ", ".join(weights.channels)
    if old == new:
        lines.append(f"first convolution: as it is, for {names}" + (" in this order" if old > 1 else ""))
    else:
        which = "the one channel" if new == 1 else f"each of {new} channels"
        lines.append(f"first convolution: the mean over {names}, times {old}/{new}, for {which}")
    if weights.dims < model["spatial_dims"]:
        lines.append("2D kernels inflated to 3D: repeated along the last axis, divided by their depth")
    methods = ", ".join(dict.fromkeys(model["normalize"] or ["unknown"]))
    factors, shifts = (dict(network.named_buffers()).get(f"input_{name}") for name in ("factor", "shift"))
    if factors is None or shifts is None:
        return [*lines, f"input: normalised by {methods}, as it is; the weights expect the scale {weights.scale!r}"]
    pairs = zip(factors.flatten().tolist(), shifts.flatten().tolist(), strict=True)
    maps = ", ".join(dict.fromkeys(f"{factor:.3f} x {shift:+.3f}" for factor, shift in pairs))
    return [*lines, f"input: normalised by {methods}; brought to the scale {weights.scale!r} of the weights by {maps}"]
