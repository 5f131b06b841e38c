"""Fingerprints in the cache: the next run of the same data does not read the scans again."""

import logging
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medseg.errors import MedsegError
from medseg.io.case import Case
from medseg.io.files.header_check import Placement
from medseg.io.files.read import exists
from medseg.io.labels import LabelMap
from medseg.io.warnings import collected, log_all
from medseg.preprocessing.cache import hash_of, is_there, recipe
from medseg.preprocessing.fingerprint.duplicates import Acquisition
from medseg.preprocessing.fingerprint.fingerprint import CaseFingerprint, fingerprint
from medseg.system.files import write_torch
from medseg.system.parallel import has_logged

log = logging.getLogger(__name__)


def cached_fingerprint(case: Case, label_map: LabelMap, folder: Path | None) -> CaseFingerprint:
    """Return the fingerprint of a labelled case, from ``folder`` where it is there, else read now and put there.

    The warnings of reading the case are cached, too, and logged every time. A case of which anything else is logged is
    read every time.

    Raises:
        MedsegError: the case cannot be used, as in ``fingerprint``.
    """
    is_damaged = False
    path = None
    if folder is not None and all(exists(file) for file in case.files):
        # with another field it is another file
        names = [field.name for kind in (CaseFingerprint, Acquisition) for field in fields(kind)]
        path = folder / f"{hash_of([names, *recipe(case, label_map)], case, folder)}.fingerprint.pt"
        if is_there(path):
            try:
                cached = restored(torch.load(path, weights_only=True))
                warned = tuple(with_paths(message, case) for message in cached.messages)
                cached = replace(cached, group=case.group, messages=warned)
            except Exception:  # a damaged file makes torch raise almost anything
                is_damaged = True
            else:
                log_all(cached.messages)
                return cached
    with collected() as messages:
        try:
            result = replace(fingerprint(case, label_map), messages=tuple(messages))
        except MedsegError:
            log_all(messages)
            raise
    if path and not has_logged():
        warned = tuple(without_paths(message, case) for message in result.messages)
        write_torch(path, plain(replace(result, messages=warned)))
    if is_damaged:
        log.warning("%s: this cached fingerprint of a case is damaged; the case was read again", path)
    log_all(result.messages)
    return result


def without_paths(message: str, case: Case) -> str:
    """Return a message in which numbers stand for the case's files: equal files elsewhere have the same record."""
    numbered = enumerate(map(str, case.files))
    for number, file in sorted(numbered, key=lambda each: -len(each[1])):  # a path may begin another
        message = message.replace(file, f"\0{number}\0")
    return message


def with_paths(message: str, case: Case) -> str:
    """Return a message of ``without_paths`` with the paths of this case's files."""
    for number, file in enumerate(case.files):
        message = message.replace(f"\0{number}\0", str(file))
    return message


def plain(case: CaseFingerprint) -> dict[str, Any]:
    """Return a fingerprint as plain containers and tensors."""
    values = {field.name: getattr(case, field.name) for field in fields(case)}
    values["acquisition"] = asdict(case.acquisition) if case.acquisition else None
    values["placement"] = asdict(case.placement)
    return {
        name: torch.from_numpy(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value
        for name, value in values.items()
    }


def restored(values: dict[str, Any]) -> CaseFingerprint:
    """Read what ``plain`` returned."""
    values = {name: value.numpy() if isinstance(value, torch.Tensor) else value for name, value in values.items()}
    if values["acquisition"]:
        values["acquisition"] = Acquisition(**values["acquisition"])
    return CaseFingerprint(**{**values, "placement": Placement(**values["placement"])})
