"""Splits: which cases train, which choose the best checkpoint, which are tested; no group in two subsets."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medseg.config.settings import SplitSettings
from medseg.config.untrusted import read_json, read_json_object
from medseg.errors import MedsegError, listing, nearest
from medseg.io.case import Case
from medseg.io.tables import read_table
from medseg.system.files import write_json

log = logging.getLogger(__name__)

FORMAT = 1
SUBSETS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """The ids of the cases of each subset, sorted."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]

    def save(self, path: Path, hashes: Mapping[str, str], seed: int) -> None:
        """Write ``splits.json``: the subsets, the seed they were drawn with, and the hash of each case's voxels."""
        write_json(path, {"format": FORMAT, "seed": seed, **asdict(self), "hashes": dict(hashes)})

    @classmethod
    def of(cls, subsets: Iterable[tuple[str, str]]) -> "Split":
        """Return the split of cases by id and subset."""
        ids: dict[str, list[str]] = {subset: [] for subset in SUBSETS}
        for name, subset in subsets:
            ids[subset].append(name)
        return cls(**{subset: tuple(sorted(names)) for subset, names in ids.items()})

    @classmethod
    def load(cls, path: Path) -> "Split":
        """Read ``splits.json``; MedsegError if it is missing or something else."""
        content = _read_json(path)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise MedsegError(f"{path} is no splits.json of format {FORMAT}.")
        return cls(**_subsets(content, path))


def read_hashes(path: Path, cure: str = "") -> dict[str, str]:
    """Return the hash of each case's voxels that a ``splits.json`` has, by id; ``cure`` ends an error's message.

    Raises:
        MedsegError: the file cannot be read, or is something else.
    """
    hashes = read_json_object(path, cure).get("hashes") or {}
    if not (isinstance(hashes, dict) and all(isinstance(code, str) for code in hashes.values())):
        raise MedsegError(f"{path}: hashes must be a mapping of cases to texts. {cure}".rstrip())
    return hashes


def parts_by_hash(path: Path, cure: str = "") -> dict[str, str]:
    """Return the subset of each scan of a ``splits.json`` by the hash of its voxels; errors as of ``read_hashes``.

    A scan that is there twice, once in training, was trained on.
    """
    hashes = read_hashes(path, cure)
    subsets = reversed(asdict(Split.load(path)).items())
    return {hashes[name]: subset for subset, names in subsets for name in names if name in hashes}


def are_folds(splits: Iterable[Mapping[str, str]]) -> bool:
    """Return whether splits, as ``parts_by_hash``, are folds: of the same scans, none of which validates twice.

    They may be some folds only, of which the others are missing.
    """
    splits = tuple(splits)
    learned = {frozenset(code for code, subset in split.items() if subset != "test") for split in splits}
    validated = [code for split in splits for code, subset in split.items() if subset == "val"]
    return len(splits) > 1 and len(learned) == 1 and len(set(validated)) == len(validated) > 0


def split_as_set(cases: Iterable[Case], settings: SplitSettings, run_seed: int, data_split: Path | None) -> Split:
    """Divide cases as the settings say; see ``make_split``.

    ``split.seed`` divides them, the run's own seed where it is null; the labelled ones are drawn by the run's.
    """
    seed = run_seed if settings.seed is None else settings.seed
    chosen = {**vars(settings), "seed": seed}
    return make_split(cases, **chosen, draw=run_seed, data_split=data_split)


def make_split(
    cases: Iterable[Case],
    *,
    val: float,
    test: float,
    folds: int | None = None,
    fold: int = 0,
    seed: int = 0,
    file: Path | None = None,
    data_split: Path | None = None,
    labelled: int | None = None,
    draw: int = 0,
) -> Split:
    """Divide cases by group, as a file or the data set itself says, or at random.

    The test subset is cut first. The rest is divided into ``folds``, of which ``fold`` validates, or ``val`` of all
    groups validate. Fractions count groups and are rounded, with at least one group in a subset that is not 0. The
    result depends on the groups and the seed, not on the order of the cases.

    ``file`` is a ``splits.json``, nnU-Net's ``splits_final.json`` (``fold`` picks) or a CSV (columns id and part).
    Without ``file`` and ``folds`` the split that came with the data counts: the column ``split`` of its table, or else
    the file ``data_split`` beside it.

    ``labelled`` groups, sampled with the seed ``draw``, remain of training and validation together, as if no others had
    masks; a smaller number samples some of those that a larger one does. The test subset stays whole.

    Cases that came with corrections (``Case.added``) are divided after all others, which therefore stay where they
    were: into the training subset, or to the rest of their group.

    Raises:
        MedsegError: a value is out of its range, a subset has no case, the file names unknown cases or splits a group.
    """
    cases = tuple(cases)
    listed = {name for ids in asdict(read_split(file, fold)).values() for name in ids} if file else set()
    drawn = [case for case in cases if not case.added or case.id in listed]
    members = defaultdict(list)
    for case in drawn:
        members[case.group].append(case.id)
    if file is not None:
        split = _checked(read_split(file, fold), members, f"split.file={file}")
    elif folds is None and any(case.columns.get("split") for case in drawn):
        log.info("split: as the table's column 'split' says; split.file or split.folds go before it")
        split = _checked(_from_column(drawn), members, "the table's column 'split'")
    elif folds is None and data_split is not None:
        log.info(
            "split: fold %d of %s, which came with the data; split.file or split.folds go before it", fold, data_split
        )
        split = _checked(read_split(data_split, fold), members, str(data_split))
    else:
        split = _random_split(members, val=val, test=test, folds=folds, fold=fold, seed=seed)
    if labelled is not None:
        split = limited(split, drawn, labelled, draw)
    subset_of = {name: subset for subset, ids in asdict(split).items() for name in ids}
    subset_of_group = {case.group: subset_of[case.id] for case in drawn if case.id in subset_of}
    divided = {case.id for case in drawn}
    added = {case.id: subset_of_group.get(case.group, "train") for case in cases if case.id not in divided}
    return Split.of((subset_of | added).items())


def _random_split(
    members: Mapping[str, list[str]], *, val: float, test: float, folds: int | None, fold: int, seed: int
) -> Split:
    """Divide groups, each with the ids of its cases, at random; errors as in ``make_split``."""
    if not 0 <= test < 1:
        raise MedsegError(f"split.test={test} must be at least 0 and below 1.")
    if folds is None and not 0 < val < 1 - test:
        raise MedsegError(
            f"split.val={val} must be above 0, and below 1 with split.test={test}:"
            " validation chooses the best checkpoint, and training needs the rest."
        )
    if folds is None and fold:
        raise MedsegError(f"split.fold={fold} has no meaning without split.folds.")
    if folds is not None and (folds < 2 or not 0 <= fold < folds):
        raise MedsegError(f"split.folds={folds} must be at least 2, and split.fold={fold} from 0 to split.folds - 1.")
    groups = np.random.default_rng(seed).permutation(np.array(sorted(members), dtype=object))
    tested, rest = np.split(groups, [_count(test, len(groups))])
    if folds is None:
        validated, trained = np.split(rest, [_count(val, len(groups))])
    else:
        validated = np.array_split(rest, folds)[fold]
        trained = np.setdiff1d(rest, validated)
    if not len(trained) or not len(validated):
        raise MedsegError(
            f"a part of the split has no case: of {len(groups)} groups training would have {len(trained)}, validation"
            f" {len(validated)} and test {len(tested)} with split.val={val}, split.test={test},"
            f" split.folds={folds or 'null'}. Lower these, add cases, or check dataset.group."
        )
    divided = zip(SUBSETS, (trained, validated, tested), strict=True)
    return Split.of((name, subset) for subset, groups in divided for group in groups for name in members[group])


def continued_split(
    cases: Iterable[Case], seen: Mapping[str, str], *, val: float, test: float, seed: int = 0
) -> Split | None:
    """Divide cases of which some were in a subset before: they stay there, so that no case is tested on that was seen.

    New groups fill validation and test up to their fractions, and train otherwise; cases that came with corrections
    (``Case.added``) train, or go to the rest of their group.

    Args:
        cases: to be divided.
        seen: the subset that cases were in, by id.
        val: as ``make_split``.
        test: as ``make_split``.
        seed: fixes which new groups go where.

    Returns:
        None where no split comes of it: a group was in two subsets, or training or validation would have no case.
    """
    cases = tuple(cases)
    subset_of = {case.group: seen[case.id] for case in cases if case.id in seen}
    if any(subset_of[case.group] != seen[case.id] for case in cases if case.id in seen):
        return None
    new = sorted({case.group for case in cases if not case.added} - subset_of.keys())
    total, left = len(subset_of) + len(new), list(np.random.default_rng(seed).permutation(np.array(new, dtype=object)))
    for subset, share in (("val", val), ("test", test)):
        lacking = max(0, _count(share, total) - list(subset_of.values()).count(subset))
        subset_of |= dict.fromkeys(left[:lacking], subset)
        left = left[lacking:]
    split = Split.of({case.id: subset_of.get(case.group, "train") for case in cases}.items())
    return split if split.train and split.val else None


def limited(split: Split, cases: Iterable[Case], labelled: int, draw: int) -> Split:
    """Keep so many groups of training and validation, in the ratio of the two, at least one of each."""
    group_of = {case.id: case.group for case in cases}
    groups = [sorted({group_of[name] for name in subset}) for subset in (split.train, split.val)]
    total = sum(map(len, groups))
    if not 2 <= labelled <= total:
        raise MedsegError(
            f"split.labelled={labelled}: training and validation have {total} groups, of which 2 or more are needed."
        )
    n_val = max(1, round(labelled * len(groups[1]) / total))
    limited_subsets: list[tuple[str, ...]] = []
    for index, (ids, count) in enumerate(((split.train, labelled - n_val), (split.val, n_val))):
        order = np.random.default_rng([draw, index]).permutation(len(groups[index]))
        chosen = {groups[index][i] for i in order[:count]}
        limited_subsets.append(tuple(name for name in ids if group_of[name] in chosen))
    train, val = limited_subsets
    return Split(train, val, split.test)


def _count(share: float, total: int) -> int:
    return max(1, int(share * total + 0.5)) if share else 0


def _from_column(cases: Iterable[Case]) -> Split:
    """Take each case's subset from its table."""
    subset_of = {case.id: case.columns.get("split", "") for case in cases}
    if wrong := [f"{name}: {subset or 'empty'}" for name, subset in subset_of.items() if subset not in SUBSETS]:
        raise MedsegError(
            f"the table's column 'split' must be train, val or test for every case, or empty for all:\n{listing(wrong)}"
        )
    return Split.of(subset_of.items())


def _checked(split: Split, groups: Mapping[str, list[str]], source: str) -> Split:
    """Return a split that was read, or list every misfit."""
    subsets = asdict(split)
    ids = {name for members in groups.values() for name in members}
    listed = Counter(name for subset in subsets.values() for name in subset)
    unknown = [name for name in listed if name not in ids]
    hints = [nearest(name, ids) for name in unknown[:20]] + [""] * len(unknown[20:])  # a hint takes a search of all ids
    problems = [f"{name} is no case of the data set.{hint}" for name, hint in zip(unknown, hints, strict=True)]
    problems += [f"{name} is listed {count} times" for name, count in listed.items() if count > 1]
    subset_of = {name: subset for subset, names in subsets.items() for name in names}
    for group, members in groups.items() if not problems else ():
        subsets_of_group = sorted({subset_of[name] for name in members if name in subset_of})
        if len(subsets_of_group) > 1:
            problems.append(f"the group {group} is in {' and '.join(subsets_of_group)}: {', '.join(members[:5])}")
    problems += [f"the part {subset!r} has no case" for subset in ("train", "val") if not subsets[subset]]
    if problems:
        raise MedsegError(f"{source} does not fit the data:\n{listing(problems)}")
    if unused := len(ids) - len(listed):
        log.warning("%s leaves %d of %d cases unused", source, unused, len(ids))
    return split


def read_split(path: Path, fold: int = 0) -> Split:
    """Read a ``splits.json``, nnU-Net's ``splits_final.json`` (``fold`` picks) or a CSV (columns id and part)."""
    if path.suffix.lower() in (".csv", ".tsv"):
        rows = [(row["id"], row.get("part") or row.get("split", "")) for row in read_table(path, "split.file", ["id"])]
        wrong = [
            f"line {n}: id={name}, part={subset}" for n, (name, subset) in enumerate(rows, 2) if subset not in SUBSETS
        ]
        if wrong or not rows:
            raise MedsegError(
                f"split.file={path} needs the columns id and part (train, val, test):\n{listing(wrong or ['no rows'])}"
            )
        return Split.of(rows)
    content = _read_json(path)
    if not isinstance(content, list):
        return Split.load(path)
    if not 0 <= fold < len(content):
        raise MedsegError(f"split.fold={fold}: {path} holds {len(content)} folds, counted from 0.")
    return Split(**_subsets(content[fold], path))


def read_folds(path: Path) -> list[Split]:
    """Read every fold of nnU-Net's ``splits_final.json``; of another file its one split."""
    content = [] if path.suffix.lower() in (".csv", ".tsv") else _read_json(path)
    return [read_split(path, fold) for fold in range(len(content) if isinstance(content, list) else 0)] or [
        read_split(path)
    ]


def _read_json(path: Path) -> Any:
    return read_json(path, "Give a splits.json, nnU-Net's splits_final.json or a table, or restore the run's own.")


def _subsets(content: Any, path: Path) -> dict[str, tuple[str, ...]]:
    """Take the lists of ids; nnU-Net's have no test subset."""
    if not isinstance(content, dict) or not {"train", "val"} <= content.keys():
        raise MedsegError(f"{path} is no split: the lists 'train' and 'val' are missing.")
    subsets = {subset: content.get(subset, []) for subset in SUBSETS}
    wrong = [
        subset
        for subset, ids in subsets.items()
        if not isinstance(ids, list) or any(type(name) is not str for name in ids)
    ]
    if wrong:
        raise MedsegError(f"{path}: {', '.join(wrong)} must be lists of case ids.")
    return {subset: tuple(sorted(ids)) for subset, ids in subsets.items()}
