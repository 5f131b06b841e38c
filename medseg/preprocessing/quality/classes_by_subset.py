"""Classes that a split leaves without training cases, or with those of one patient only."""

from collections.abc import Iterator

from medseg.io.datasets.splits import PARTS, Split
from medseg.io.labels import UNLABELLED, LabelMap
from medseg.preprocessing.fingerprint.fingerprint import Fingerprint
from medseg.preprocessing.quality.issues import Finding


def classes_by_part(usable: Fingerprint, label_map: LabelMap, split: Split | None) -> Iterator[Finding]:
    """Yield a warning for each class, or region, that has no training case, or those of one group of several.

    Classes that no case has are named elsewhere.
    """
    if split is None or label_map is UNLABELLED:
        return
    cases = usable.cases
    parts = {part: [name for name in getattr(split, part) if name in cases] for part in PARTS}
    training_groups = {cases[name].group for name in parts["train"]}
    for label, members in label_map.reported.items():
        having = {
            part: [name for name in ids if cases[name].voxels[list(members)].any()] for part, ids in parts.items()
        }
        groups = {cases[name].group for name in having["train"]}
        counts = ", ".join(f"{part} {len(having[part])} of {len(ids)}" for part, ids in parts.items())
        found = tuple(name for ids in having.values() for name in ids)
        where = tuple(part for part, ids in having.items() for _ in ids)
        if found and not groups:
            text = (
                f"{label}: no training case has it, so that it cannot be learned (cases with it: {counts}); give"
                " another split.seed or split.file, more cases, or leave the class out of dataset.labels"
            )
            yield Finding("warning", text, found, "class split", where)
        elif len(groups) == 1 < len(training_groups):
            only = f"all training cases with it are of one patient, {min(groups)}"
            if len(having["train"]) == 1:
                only = f"only one training case has it, {having['train'][0]}"
            text = f"{label}: {only} (cases with it: {counts}); what is learned of it may not hold for other patients"
            yield Finding("warning", text, found, "class split", where)
