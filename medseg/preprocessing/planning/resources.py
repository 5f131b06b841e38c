"""What memory and time allow: the size of patch and batch, and the width of the network.

The plan of the data says what would be best; this says what the device can bear and what the time is enough for.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from medseg.errors import MedsegError

log = logging.getLogger(__name__)

Plan = dict[str, Any]

WIDTHS = (8, 16, 24, 32)
"""Channels of the finest level to choose from; 32 is nnU-Net's."""
SHRINK, SMALLEST = 0.8, 0.02
"""Patch and batch shrink by this factor until they fit into the memory, down to this share of their usual voxels."""
GAIN = 0.95
"""Channels last must take less than this share of the time of channels first, or the difference is noise."""


COMPARISONS = 12
"""Seconds of comparing plans on the device, after which none is begun: with the last one, 20 are not passed."""


@dataclass(frozen=True)
class StepCost:
    """What a step of training was measured to take: seconds, infinite where memory ran out; bytes, 0 where unknown.

    ``failure`` is why the network could not be compiled, None if it was, or was not meant to be.
    """

    seconds: float
    bytes: int = 0
    failure: str | None = None


class Probe(Protocol):
    """Tells what training by a plan would cost. ``spent`` are the seconds that ``seconds`` has taken so far."""

    spent: float

    def memory(self, plan: Plan) -> int | None:
        """Return the bytes at the peak, None where that is unknown."""

    def seconds(self, plan: Plan) -> float:
        """Return the seconds of a step, to compare plans by; infinite where it cannot be done."""

    def step(self, plan: Plan) -> StepCost:
        """Return what a step takes, just as training will make it."""


def within_memory(
    draft: Callable[[float], Plan], probe: Probe, limit: float, *, is_given: bool, share: float = 1.0
) -> tuple[Plan, float]:
    """Return the plan with the largest patch and batch that fit into the memory, and its share of the usual voxels.

    Args:
        draft: from a share of the usual voxels to a plan.
        probe: counts the memory of a plan.
        limit: bytes, 0 for none.
        is_given: whether the limit is the config's; if not, what cannot be made small enough is only warned of.
        share: to begin with.

    Raises:
        MedsegError: even the smallest plan needs more than the config allows.
    """
    plan = draft(share)
    while limit and (need := probe.memory(plan)):
        plan.setdefault("measured", {})["memory_gb"] = round(need / 1e9, 2)
        if need <= limit:
            break
        if share <= SMALLEST:
            patch = "×".join(map(str, plan["plan"]["patch_size"]))
            text = (
                f"a patch of {patch} and a batch of {plan['plan']['batch_size']} need about {need / 1e9:.4g} GB of"
                f" memory, of {limit / 1e9:.4g}. Take a narrower network, or lower plan.patch_size or plan.batch_size."
            )
            if is_given:
                raise MedsegError(f"trainer.memory_gb={limit / 1e9:g}: {text}")
            log.warning("memory: %s Or say by trainer.memory_gb what the device has.", text)
            break
        steps = max(1, int(math.log(limit / need, SHRINK)))  # no more than needed: memory shrinks no faster
        share = max(SMALLEST, share * SHRINK**steps)
        plan = draft(share)
    return plan, share


def fit_width(plan: Plan, probe: Probe, max_time: int | None, limit: float = 0) -> Plan:
    """Return the plan with the widest network that has enough steps in the time, from measured speed, and the memory.

    A narrow network that sees more batches beats a wide one in a short time. Enough are ``width`` squared steps: a step
    costs as much as the square of the width, so that steps and cost of a step then grow alike with the time, as is best
    where both count (Hoffmann et al., "Training Compute-Optimal Large Language Models", NeurIPS 2022). Without a time
    limit the width stays: the number of steps is then the same for all widths.

    Where comparing has taken its time, a wider network's step is taken to grow with the square of the width, which is
    the most that it does.
    """
    if not max_time or "base_channels" not in plan["model"]:
        return plan
    need = plan.get("measured", {}).get("memory_gb", math.inf)
    enough = plan["model"]["base_channels"] if need * 1e9 <= limit else 0  # a width that is known to fit
    measured: dict[str, float] = {}
    estimated, last, chosen = list[int](), WIDTHS[0], None
    for width in WIDTHS:
        candidate = {**plan, "model": {**plan["model"], "base_channels": width}}
        if chosen and limit and width > enough and (probe.memory(candidate) or 0) > limit:
            break
        if not measured or probe.spent < COMPARISONS:
            measured[str(width)] = round(probe.seconds(candidate), 4)
            last = width
        else:
            estimated.append(width)
            measured[str(width)] = round(measured[str(last)] * (width / last) ** 2, 4)
        if chosen and max_time < width**2 * measured[str(width)]:
            break
        chosen = candidate
    assert chosen is not None
    finite = {width: step for width, step in measured.items() if math.isfinite(step)}
    steps = ", ".join(f"{width}: {max_time / step:.0f}" for width, step in finite.items())
    log.info("base_channels=%d: estimated steps within max_time per width: %s", chosen["model"]["base_channels"], steps)
    if estimated:
        log.info("widths from %d on are estimated: measuring the others took %.0f s", estimated[0], probe.spent)
    memory = round((probe.memory(chosen) or 0) / 1e9, 2)
    return {**chosen, "measured": {**plan.get("measured", {}), "memory_gb": memory, "step_seconds": finite}}


def fit_layout(plan: Plan, probe: Probe, setting: bool | None) -> Plan:
    """Return the plan with channels last in memory if that was measured to be faster on the device.

    Nothing is measured where the config has a setting, where a 2D network takes volumes by slices, or where comparing
    has taken its time.
    """
    if setting is not None or plan["plan"]["slice_axis"] is not None:
        return plan
    if probe.spent >= COMPARISONS:
        log.info("channels stay first in memory: measuring widths took %.0f s, so that layouts are not", probe.spent)
        return plan
    first, last = (
        probe.seconds({**plan, "trainer": {**plan["trainer"], "channels_last": is_last}}) for is_last in (False, True)
    )
    return {**plan, "trainer": {**plan["trainer"], "channels_last": last < GAIN * first}}


def fit_step(plan: Plan, probe: Probe, limit: float, *, must_compile: bool) -> Plan | None:
    """Return the plan after a step by it on the device, with what this took; None where memory does not suffice.

    It is compiled no more if that did not work.

    Args:
        plan: complete but for this.
        probe: makes the step.
        limit: bytes, 0 for none.
        must_compile: whether the config wants the network compiled.

    Raises:
        MedsegError: the config wants the network compiled, which does not work.
    """
    cost = probe.step(plan)
    if cost.failure and must_compile:
        raise MedsegError(
            f"trainer.compile=true: the network cannot be compiled here ({cost.failure}). Leave it out to train"
            " without, or mend what is missing."
        )
    if math.isinf(cost.seconds) or (limit and cost.bytes > limit):
        return None
    measured = {**plan.get("measured", {}), "step": round(cost.seconds, 4)}
    if cost.bytes:
        measured["peak_gb"] = round(cost.bytes / 1e9, 2)
    trainer = {**plan["trainer"], **({"compile": False} if cost.failure else {})}
    return {**plan, "trainer": trainer, "measured": measured}
