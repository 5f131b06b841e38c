"""Phantoms under the names and label values of each generation of BraTS."""

import csv
import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medseg.io.case import Scan
from medseg.io.layouts.synthetic import CORE, make_phantom, patient_of, write_decathlon, write_nifti

Labels = NDArray[np.uint8]

ORDER = (0, 2, 1, 3)
"""The places of FLAIR, T1, T1 with contrast agent and T2 among the phantom's four channels."""


@dataclass(frozen=True)
class Brats:
    """How a generation of BraTS names its files, and which values it gives the parts of a lesion.

    ``case`` is the folder of a case, whose name is the id, as a format of {grade}, {patient}, {time} (counted from
    ``first_time``) and {number}; ``channels`` and ``mask`` are files in it, without suffix, as formats of {id}. With
    ``apart`` every case is another patient. ``upper`` is the value of the core's upper half, where there are four
    classes; ``older`` the case's name in an older generation, which ``name_mapping.csv`` tells.
    """

    case: str
    channels: tuple[str, str, str, str] = ("{id}_flair", "{id}_t1", "{id}_t1ce", "{id}_t2")
    mask: str = "{id}_seg"
    enhancing: int = 4
    upper: int | None = None
    first_time: int = 1
    apart: bool = False
    older: str | None = None

    def values(self, label: Labels, scan: Scan) -> Labels:
        """Return the values of a mask for the classes (*spatial) of the phantom."""
        values = np.array([0, 2, 1, self.enhancing], np.uint8)[label]  # in all generations edema is 2 and the core 1
        if self.upper is not None:
            core = label == CORE
            height = np.tensordot(scan.affine[2, :3], np.indices(label.shape), 1)
            values[core & (height * core.sum() > height[core].sum())] = self.upper
        return values


OF_2023 = Brats(
    "BraTS-GLI-{patient:05d}-{time:03d}",
    ("{id}-t2f", "{id}-t1n", "{id}-t1c", "{id}-t2w"),
    "{id}-seg",
    enhancing=3,
    first_time=0,
)
BRATS = {
    "brats2012": Brats(
        "{grade}/brats_tcia_pat{patient:03d}_{time:04d}",
        ("VSD.Brain.XX.O.MR_Flair", "VSD.Brain.XX.O.MR_T1", "VSD.Brain.XX.O.MR_T1c", "VSD.Brain.XX.O.MR_T2"),
        "VSD.Brain_3more.XX.O.OT",
        upper=3,
    ),
    "brats2018": Brats("{grade}/Brats18_TCIA05_{patient:03d}_{time}"),
    "brats2020": Brats("BraTS20_Training_{number:03d}", older="BraTS19_TCIA05_{patient:03d}_{time}"),
    "brats2021": Brats("BraTS2021_{number:05d}", apart=True),
    "brats2023": OF_2023,
    "brats2024": replace(OF_2023, upper=4, first_time=100),
}
FIRST_NUMBER = 355
MISNAMED = {"BraTS20_Training_355": "W39_1998.09.19_Segm"}
"""The mask of this case was published under another name."""

TASK01 = {
    "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
    "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
}


def write_brats(root: Path, layout: str, *, cases: int, size: int, seed: int) -> Path:
    """Write labelled cases, and two unlabelled ones beside them; ``groups.csv`` (id, group) names the patients."""
    make = partial(make_phantom, dims=3, channels=4, size=size, seed=seed)
    root.mkdir()
    if layout == "brats_decathlon":
        patients = write_task01(root, make, cases)
    else:
        patients = write_generation(root, BRATS[layout], make, cases)
    with (root / "groups.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "group"), *patients.items()])
    return root


def write_task01(root, make, cases):
    """Write the Decathlon's Task01; return the patient of each case."""

    def in_order(index):
        scan, label = make(index)
        return replace(scan, image=scan.image[list(ORDER)]), label

    patients = write_decathlon(root, in_order, cases, channels=4, prefix="BRATS")
    description = root / "dataset.json"
    description.write_text(json.dumps(json.loads(description.read_text()) | TASK01))
    return patients


def write_generation(root, form, make, cases):
    """Write a generation of BraTS under its own names; return the patient of each case."""
    mapping, patients = [("Grade", "BraTS_2019_subject_ID", "BraTS_2020_subject_ID")], {}
    first_unlabelled = cases + cases % 2
    for index in (*range(cases), first_unlabelled, first_unlabelled + 1):
        made = 2 * index if form.apart else index
        patient, grade = made // 2, ("HGG", "LGG")[made // 2 % 2]
        facts = {"patient": patient, "grade": grade, "time": made % 2 + form.first_time, "number": FIRST_NUMBER + index}
        case = root / "TrainingData" / form.case.format(**facts)
        if index >= cases:
            case = root / "ValidationData" / case.name.replace("Training", "Validation")
        scan, label = make(made)
        arrays = [*scan.image[list(ORDER)], form.values(label, scan)]
        names = (*form.channels, MISNAMED.get(case.name, form.mask) if index < cases else None)
        for name, array in zip(names, arrays, strict=True):
            if name is not None:
                path = case / f"{name.format(id=case.name)}.nii.gz"
                path.parent.mkdir(parents=True, exist_ok=True)
                write_nifti(path, array[None], scan)
        mapping.append((grade, (form.older or "NA").format(**facts), case.name))
        patients[case.name] = patient_of(made)
    if form.older:
        with (root / "TrainingData" / "name_mapping.csv").open("w", newline="") as file:
            csv.writer(file).writerows(mapping[: cases + 1])
    return patients
