"""Cases predicted, measured and reported: what ``medseg eval`` does, and ``medseg train`` at its end."""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError, listing, nearest
from medseg.evaluation.comparison.pairing import pair
from medseg.evaluation.comparison.tables import in_words
from medseg.evaluation.comparison.tests import compare_all
from medseg.evaluation.images.overlays import overlay
from medseg.evaluation.images.views import View, view_of
from medseg.evaluation.metrics.overlap import counts
from medseg.evaluation.metrics.registry import Settings, measure_case
from medseg.evaluation.pages.text_table import print_tables
from medseg.evaluation.report.cases import overlay_files
from medseg.evaluation.report.files import REPORT, Report, write_report
from medseg.evaluation.report.html import html_report
from medseg.evaluation.report.tables import tables_of
from medseg.evaluation.statistics.cases import Row, case_rows, ranked, scored_cases
from medseg.evaluation.statistics.sampling import evenly
from medseg.evaluation.statistics.strata import check_values
from medseg.evaluation.statistics.summary import Summary, summarise
from medseg.io.case import Case, Scan
from medseg.io.datasets.annotations import read_labelled
from medseg.io.files.sizes import size_of
from medseg.io.labels import LabelMap
from medseg.io.warnings import logged
from medseg.jobs.evaluate.candidates import Segment
from medseg.jobs.evaluate.seen import Seen
from medseg.jobs.training_run import not_learned
from medseg.preprocessing.fingerprint.fingerprint import voxel_hash
from medseg.system.cores import cores
from medseg.system.distributed.ranks import Ranks
from medseg.system.files import replacing, write_text
from medseg.system.memory import (
    MORE_MEMORY,
    TO_READ,
    NotEnoughMemoryError,
    drop_frames,
    enough_memory,
    free_caches,
    is_out_of_memory,
)
from medseg.system.terminal import Terminal, with_progress_bar

log = logging.getLogger(__name__)

VIEWS = 3
"""Cases whose slices a report has: the worst, the median and the best."""


@dataclass(frozen=True)
class ReportOptions:
    """What a report is to hold.

    ``strata`` are columns of the data set's table, each of whose values gets statistics of its own, ``examples`` the
    number of cases that are drawn, ``runs`` the run directories that the report describes: "training", "evaluation".
    ``notes`` are lines about the choice of the cases; further ones say which of them the models have ``seen``, and the
    difference in Dice to ``against``, another report of the same cases. ``models`` are the checkpoint files evaluated.
    """

    metrics: Settings
    subset: str
    strata: Sequence[str] = ()
    examples: int = 3
    runs: Mapping[str, Path] = field(default_factory=dict)
    notes: Sequence[str] = ()
    seen: Seen | None = None
    against: Report | None = None
    models: Sequence[Path] = ()


def evaluate_cases(
    segment: Segment,
    cases: Sequence[Case],
    label_map: LabelMap,
    folder: Path,
    options: ReportOptions,
    unreadable: Sequence[str] = (),
    ranks: Ranks | None = None,
) -> tuple[Summary, list[str]]:
    """Predict and measure cases, write the report's files and overlays, and show its tables.

    ``unreadable`` has a line for each further case that cannot even be tried. Of ``ranks`` this is the first process.

    Returns:
        The summary as in ``metrics.json``, and a line for each case that could not be scored.

    Raises:
        MedsegError: no case could be scored, or strata that the data set does not have.
    """
    check_strata(cases, options.strata)
    rows: list[Row] = []
    problems = list(unreadable)
    hashes: dict[str, str] = {}

    def hashing(case: Case, scan: Scan) -> NDArray[np.uint8]:
        hashes[case.id] = voxel_hash(scan)
        return segment(case, scan)

    outcomes = measured(hashing if options.seen else segment, cases, label_map, options.metrics, ranks or Ranks())
    for case in cases:
        if isinstance(outcome := outcomes[case.id], str):
            problems.append(f"{case.id}: {outcome}")
        else:
            rows += outcome
    if problems:
        log.error("%d case(s) could not be scored:\n%s", len(problems), listing(problems))
    if not rows:
        raise MedsegError("no case could be scored.")
    learned = options.seen.notes(hashes) if options.seen else []
    for note in learned:
        log.warning("%s", note)
    told: dict[str, Any] = {"problems": problems, "notes": [*options.notes, *learned]}
    told["warnings"] = not_learned(options.models)
    names, subset, strata = list(label_map.reported), options.subset, options.strata
    summary = summarise(rows, names, options.metrics, subset=subset, strata=strata, **told)
    for warning in summary["warnings"]:
        log.warning("%s", warning)
    if options.against:
        one = compare_all(pair([Report("these", folder, rows, {}), options.against], ["dice"]))[-1]  # over all classes
        summary["against"] = {"name": options.against.name, **asdict(one)}
        summary["notes"].append(f"against {options.against.name}: {in_words(one)}")
    files = overlay_files(folder, (row["case"] for row in rows))
    drawn, viewed = (pick_examples(rows, cases, min(most, options.examples)) for most in (len(cases), VIEWS))
    views = draw_examples(segment, drawn, viewed, label_map, files)
    write_report(folder, rows, summary)
    write_text(folder / REPORT, html_report(summary, rows, folder, options.runs, views))
    print_tables(tables_of(summary), Terminal())
    return summary, problems


def log_output_paths(run_dir: Path) -> None:
    """Log where a run's files are, its reports last."""
    log.info("run directory: %s", run_dir)
    for path in sorted(run_dir.rglob(REPORT)):
        log.info("report: %s", path)


def measured(
    segment: Segment, cases: Sequence[Case], label_map: LabelMap, metrics: Settings, ranks: Ranks
) -> dict[str, list[Row] | str]:
    """Predict and measure this process's share of the cases; return by id each one's rows, or what is wrong with it.

    The first of several processes gets those of all.
    """
    share = cases[ranks.rank :: ranks.size]
    found = with_progress_bar(scored(segment, share, label_map, metrics), len(share), "evaluating")
    own = {case.id: outcome for case, outcome in found}
    return {name: outcome for part in ranks.gather("outcomes", own) for name, outcome in part.items()}


def scored(
    segment: Segment, cases: Sequence[Case], label_map: LabelMap, metrics: Settings
) -> Iterator[tuple[Case, list[Row] | str]]:
    """Yield each case with its rows, or with what is wrong with it, in order.

    One case is predicted while those before it are measured in threads; no more wait than there are threads. Where
    memory runs out, a case is tried again when nothing else is at work, and half as many at once from then on.
    """
    waiting: deque[tuple[Case, Future[list[Row]]]] = deque()
    most = cores()
    with ThreadPoolExecutor(cores()) as pool:

        def next_outcome() -> tuple[Case, list[Row] | str]:
            nonlocal most
            case, future = waiting.popleft()
            if (error := future.exception()) and is_out_of_memory(error):
                if most > 1:
                    most //= 2
                    log.warning("memory is short: fewer cases are predicted and measured at once")
                wait([other for _, other in waiting])
                drop_frames(error)
                free_caches()
                future = start(pool.submit, segment, case, label_map, metrics)
            try:
                return case, future.result()
            except MedsegError as error:
                return case, str(error)

        for number, case in enumerate(cases, 1):
            while len(waiting) >= most:
                yield next_outcome()
            waiting.append((case, start(pool.submit, segment, case, label_map, metrics)))
            log.debug("%d of %d: %s", number, len(cases), case.id)
        while waiting:
            yield next_outcome()


def start(
    submit: Callable[..., Future[list[Row]]], segment: Segment, case: Case, label_map: LabelMap, metrics: Settings
) -> Future[list[Row]]:
    """Predict a case and start to measure it; a MedsegError of predicting is in the future, too."""
    try:
        with logged(), enough_memory(lambda: f"to read {size_of(case)}", TO_READ):
            scan, reference = read_labelled(case, label_map)
        return submit(measured_rows, case, scan, segment(case, scan), reference, label_map, metrics)
    except MedsegError as error:
        failed: Future[list[Row]] = Future()
        failed.set_exception(error)
        return failed


def measured_rows(
    case: Case,
    scan: Scan,
    indices: NDArray[np.uint8],
    reference: NDArray[np.uint8],
    label_map: LabelMap,
    metrics: Settings,
) -> list[Row]:
    """Return the report's rows of one case."""
    reported = list(label_map.reported.values())
    voxel_size = scan.voxel_volume / 1000 if scan.unit == "mm" else 1.0
    with enough_memory(f"to measure the masks of a scan of {scan.shape}", MORE_MEMORY):
        voxels = counts(indices, reference, len(label_map.names), reported)
        measured = measure_case(
            indices, reference, reported, spacing=scan.spacing, voxel_size=voxel_size, settings=metrics
        )
    return case_rows(case, voxels, measured, label_map, scan.voxel_volume, scan.unit)


def check_strata(cases: Sequence[Case], strata: Sequence[str]) -> None:
    """Raise for strata that the data set's table does not have, or that have a value of their own for most cases."""
    known = sorted({column for case in cases for column in case.columns})
    if unknown := [column for column in strata if column not in known]:
        raise MedsegError(
            f"metrics.strata: the data set's table has no column {', '.join(unknown)}; "
            f"it has {', '.join(known) or 'no further ones'}.{nearest(unknown[0], known)}"
        )
    for column in strata:
        check_values(column, {case.id: case.columns.get(column, "") for case in cases})


def pick_examples(rows: Sequence[Row], cases: Sequence[Case], number: int) -> list[Case]:
    """Pick cases evenly from the worst mean Dice to the best."""
    order = [case.id for case in ranked(scored_cases(rows))]
    by_id = {case.id: case for case in cases}
    return [by_id[order[index]] for index in evenly(len(order), number)]


def draw_examples(
    segment: Segment, drawn: Sequence[Case], viewed: Sequence[Case], label_map: LabelMap, files: Mapping[str, Path]
) -> list[View]:
    """Draw prediction and ground truth over the scans of cases, each into the file of its id; return others as views.

    A case may be among both; no more than one is in memory.
    """
    views = {}
    for case in {case.id: case for case in (*drawn, *viewed)}.values():
        try:
            with enough_memory(lambda: f"to draw {size_of(case)}", MORE_MEMORY):  # noqa: B023 - called within the loop
                scan, reference = read_labelled(case, label_map)
                masks = (segment(case, scan), label_map.names, reference, label_map.annotated(case.annotated))
                if case in viewed:
                    views[case.id] = view_of(case.id, scan, *masks)
                picture = overlay(scan, *masks) if case in drawn else None
        except NotEnoughMemoryError as error:
            log.warning("%s: no overlay: %s", case.id, error)
            continue
        if picture:
            with replacing(files[case.id]) as temporary:
                picture.save(temporary)
    return [views[case.id] for case in viewed if case.id in views]
