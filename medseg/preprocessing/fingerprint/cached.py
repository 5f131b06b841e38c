"""What the survey noted of a case, kept in the cache: the next run of the same data does not read the scans again."""

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


def noted(case: Case, label_map: LabelMap, folder: Path | None) -> CaseFingerprint:
    """Return the fingerprint of a labelled case, from ``folder`` where it is there, else read now and put there.

    What reading the case warns of is noted, too, and logged every time. A case of which anything else is logged is read
    every time.

    Raises:
        MedsegError: the case cannot be used, as in ``fingerprint``.
    """
    if folder is None or not all(exists(path) for path in case.files):
        return told(described(case, label_map))
    # with another field it is another file
    names = [field.name for kind in (CaseFingerprint, Acquisition) for field in fields(kind)]
    path = folder / f"{hash_of([names, *recipe(case, label_map)], case)}.fingerprint.pt"
    is_damaged = False
    if is_there(path):
        try:
            return told(replace(restored(torch.load(path, weights_only=True)), group=case.group))
        except Exception:  # a damaged file makes torch raise almost anything
            is_damaged = True
    found = described(case, label_map)
    if not has_logged():
        write_torch(path, plain(found))
    if is_damaged:
        log.warning("%s: what was noted of a case is damaged; it was read again", path)
    return told(found)


def described(case: Case, label_map: LabelMap) -> CaseFingerprint:
    """Read a case now and describe it, with what reading it warns of, which is logged where the case cannot be used."""
    with collected() as messages:
        try:
            return replace(fingerprint(case, label_map), messages=tuple(messages))
        except MedsegError:
            log_all(messages)
            raise


def told(found: CaseFingerprint) -> CaseFingerprint:
    """Return a fingerprint as it is, and log what reading the case warned of."""
    log_all(found.messages)
    return found


def plain(found: CaseFingerprint) -> dict[str, Any]:
    """Return a fingerprint as plain containers and tensors."""
    values = {field.name: getattr(found, field.name) for field in fields(found)}
    values["acquisition"] = asdict(found.acquisition) if found.acquisition else None
    values["placement"] = asdict(found.placement)
    return {
        name: torch.from_numpy(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value
        for name, value in values.items()
    }


def restored(values: dict[str, Any]) -> CaseFingerprint:
    """Read what ``plain`` returned."""
    arrays: dict[str, Any] = {
        name: value.numpy() if isinstance(value, torch.Tensor) else value for name, value in values.items()
    }
    taken = arrays["acquisition"]
    objects = {"acquisition": Acquisition(**taken) if taken else None, "placement": Placement(**arrays["placement"])}
    return CaseFingerprint(**{**arrays, **objects})
