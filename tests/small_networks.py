"""Networks of ``conf/model`` under a plan of a small patch: a step takes a moment."""

from typing import Any

NARROW = {
    "swin_unetr": {"base_channels": 12},
    "unetr": {"hidden_size": 24, "mlp_dim": 24, "num_heads": 4},
    "flexible_unet": {"backbone": "resnet10"},
}


def small(model: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the arguments that make a network small, as far as it has them."""
    usual = {key: value for key, value in {"depth": 2, "base_channels": 4}.items() if key in model}
    return usual | NARROW.get(name, {})


def small_plan(dims: int, divisor: int) -> dict[str, Any]:
    """Return a plan of two levels whose patch has two voxels at the bottom.

    Two channels, three classes; strides and kernels spare the first axis of the finest level, as for thick slices.
    """
    return {
        "in_channels": 2,
        "out_channels": 3,
        "patch_size": [2 * divisor, *[divisor] * (dims - 1)],
        "strides": [[1, *[2] * (dims - 1)], [2] * dims],
        "kernel_sizes": [[1, *[3] * (dims - 1)], [3] * dims, [3] * dims],
    }
