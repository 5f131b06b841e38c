"""A folder of scans divided among machines, and on each among its devices."""

import re
from collections.abc import Sequence
from typing import Any, TypeVar

from medseg.errors import MedsegError
from medseg.system.cores import cores
from medseg.system.device import pick_devices
from medseg.system.relaunch import start

Item = TypeVar("Item")
SHARD = re.compile(r"(\d+)/(\d+)")


def parse_shard(text: str | None) -> tuple[int, int]:
    """Return (index, count) of a shard, the first index being 1; None is all.

    >>> parse_shard("2/8"), parse_shard(None)
    ((2, 8), (1, 1))

    Raises:
        MedsegError: it is no such text, or out of range.
    """
    match = SHARD.fullmatch(text or "1/1")
    index, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= index <= count:
        raise MedsegError(f"predict.shard={text}: give PLACE/NUMBER from 1/n to n/n, as in predict.shard=2/8.")
    return index, count


def of_shard(items: Sequence[Item], index: int, count: int) -> list[Item]:
    """Return every ``count``-th item, so that neighbours, which are often similar in size, go to different shards."""
    return list(items[index - 1 :: count])


def on_devices(config: dict[str, Any], kind: str, count: int, index: int, number: int) -> list[int]:
    """Run the job of a config on several devices, each with a part of the shard ``index/number``; return exit statuses.

    Each device has a process of its own, with its part of the cores.
    """
    environment = {"OMP_NUM_THREADS": str(max(1, cores() // count))}
    processes = []
    for nth in range(count):
        device = kind if kind == "cpu" else f"{kind}:{nth}"
        shard = f"{index + nth * number}/{number * count}"  # every count-th of this shard
        own = {"trainer": config["trainer"] | {"devices": 1}, "predict": config["predict"] | {"shard": shard}}
        processes.append(start(config | {"device": device} | own, environment))
    try:
        return [process.wait() for process in processes]
    finally:
        for process in processes:
            process.terminate()


def check_devices(device: str, count: int) -> str:
    """Return the kind of device, "cuda" or "cpu", of which there are so many.

    Raises:
        MedsegError: there are fewer, or ``device`` is a single one.
    """
    if ":" in device:
        raise MedsegError(f"trainer.devices={count}, but device={device} is one. Leave device out, or say device=gpu.")
    return pick_devices(device, count)[0].type
