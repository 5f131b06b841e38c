"""Fingerprints kept in the cache: the next run of the same data does not read the scans again."""

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
from medseg.io.warnings import collected, tell
from medseg.preprocessing.cache import hash_of, is_there, recipe
from medseg.preprocessing.fingerprint.duplicates import Acquisition
from medseg.preprocessing.fingerprint.fingerprint import CaseFingerprint, fingerprint
from medseg.system.files import write_torch
from medseg.system.parallel import has_logged

log = logging.getLogger(__name__)


def noted(case: Case, label_map: LabelMap, folder: Path | None) -> CaseFingerprint:
    """Return the fingerprint of a labelled case, from ``folder`` where it is there, else read now and put there.

    The warnings of reading the case are kept, too, and logged every time. A case of which anything else is logged is
    read every time.

    Raises:
        MedsegError: the case cannot be used, as in ``fingerprint``.
    """
    is_damaged = False
    path = None
    if folder is not None and all(exists(file) for file in case.files):
        # with another field it is another file
        names = [field.name for kind in (CaseFingerprint, Acquisition) for field in fields(kind)]
        path = folder / f"{hash_of([names, *recipe(case, label_map)], case)}.fingerprint.pt"
        if is_there(path):
            try:
                cached = replace(restored(torch.load(path, weights_only=True)), group=case.group)
            except Exception:  # a damaged file makes torch raise almost anything
                is_damaged = True
            else:
                tell(cached.messages)
                return cached
    with collected() as messages:
        try:
            result = replace(fingerprint(case, label_map), messages=tuple(messages))
        except MedsegError:
            tell(messages)
            raise
    if path and not has_logged():
        write_torch(path, plain(result))
    if is_damaged:
        log.warning("%s: this cached fingerprint of a case is damaged; the case was read again", path)
    tell(result.messages)
    return result


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
