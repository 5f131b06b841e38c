"""Read the files that a list on stdin names, in a process of limited memory, and print what came of each as JSON."""

import json
import resource
import sys
import traceback
from contextlib import suppress
from pathlib import Path

import numpy as np
import pydicom.pixels  # noqa: F401 - what is imported later would count as memory of the files
import SimpleITK  # noqa: F401

from medseg.errors import MedsegError
from medseg.io.case import Case
from medseg.io.datasets.annotations import read_labels
from medseg.io.datasets.dataset import label_map
from medseg.io.files.read import exists, find_images, find_masks, on_disk, read_case, read_mask
from medseg.io.files.sizes import size_of
from medseg.io.layouts.csv_table import table
from medseg.io.layouts.image_folder import folder
from medseg.preprocessing.quality.check_dataset import check_dataset


def outcome(path, kind, result):
    """Return "read", "refused: MESSAGE" or "crashed: TRACEBACK"; voxels that were read go to a file."""
    try:
        if kind == "table":
            dataset = table(path.parent, path.name)
            problems = [*dataset.problems, *(f"{path.name}: no case" for _ in range(not dataset.cases))]
            return f"refused: {problems}" if problems else "read"
        if kind == "mask":  # of the data set two folders above
            dataset = folder(path.parents[1])
            if not dataset.cases:
                return f"refused: {dataset.problems}"
            classes = label_map(dataset)
            check_dataset(dataset.cases, classes, dataset.problems)
            case = dataset.cases[0]
            np.save(result, read_labels(case, classes, read_case(case)))
            return "read"
        size_of(Case("a", "a", (path,)))
        exists(path), on_disk(path)
        for search in (find_images, find_masks, read_mask):  # which may refuse what is no mask, and not crash
            with suppress(MedsegError):
                search(path)
        np.save(result, read_case(Case("", "", (path,))).image)
        return "read"
    except MedsegError as error:
        return f"refused: {error}"
    except Exception:
        return f"crashed: {traceback.format_exc()}"


def main():
    """Read all, each with 1 GB beyond what the libraries take."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + 10**9, resource.RLIM_INFINITY))
    samples = json.load(sys.stdin)
    print(json.dumps([outcome(Path(path), kind, result) for path, kind, result in samples]))


if __name__ == "__main__":
    main()
