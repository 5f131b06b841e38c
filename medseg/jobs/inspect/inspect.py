"""``medseg inspect``: what is in a data set, what is wrong with it, and the plan that ``train`` would use.

It takes the settings of ``train``. Exit status: 0 where training could begin, warnings or not; 3 where the data set or
the settings have errors, all of which are listed; 1 where no case can be used, or nothing can be opened at all.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medseg.config.check import read_settings
from medseg.config.settings import TrainSettings
from medseg.errors import MedsegError
from medseg.evaluation.report.run_info import data_name
from medseg.io.case import Case, Dataset
from medseg.io.datasets.dataset import by_id, label_map, open_dataset
from medseg.io.datasets.splits import Split, split_as_set
from medseg.io.labels import LabelMap
from medseg.jobs.inspect.images import marks_of, shown_cases, thumbnails
from medseg.jobs.inspect.page import inspect_page
from medseg.jobs.inspect.tables import show
from medseg.jobs.rundir import recorded, write_config
from medseg.jobs.train.setup import cache_of, check_folds, directory_of, in_run_directory, plan_run
from medseg.preprocessing.cache import amount, check_space, foretold_bytes, look_up
from medseg.preprocessing.cache_files import in_use
from medseg.preprocessing.file_hashes import hashes_in
from medseg.preprocessing.fingerprint.duplicates import EQUAL, is_split_apart, subsets_of
from medseg.preprocessing.fingerprint.fingerprint import Fingerprint
from medseg.preprocessing.planning.plan import offer
from medseg.preprocessing.preprocessor import Preprocessor
from medseg.preprocessing.quality.check_dataset import examine
from medseg.preprocessing.quality.issues import Issue
from medseg.preprocessing.quality.overview import case_rows, overview
from medseg.preprocessing.quality.warnings import classes_by_subset, data_warnings, unnamed_ct
from medseg.system.device import pick_devices
from medseg.system.files import write_json, write_text
from medseg.system.terminal import Terminal, with_progress_bar

log = logging.getLogger(__name__)

FORMAT = 1


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Inspect as the composed config says; return status, reason and seconds.

    Raises:
        MedsegError: the data set cannot be opened, or its classes are not known; nothing has been written then.
    """
    return in_run_directory(config, inspect)


def inspect(config: dict[str, Any]) -> dict[str, Any]:
    """Inspect into a run directory that has been made."""
    settings = read_settings(TrainSettings, config)
    dataset = open_dataset(settings.dataset, settings.trust)
    classes = label_map(dataset)
    cache = cache_of(settings)
    if settings.dataset.verify:
        hashes_in(cache).verify()
    with in_use(cache):
        usable, findings = examine(dataset.cases, classes, dataset.problems, with_progress_bar, cache)
    for name, case in usable.cases.items():
        findings += [Issue("warning", message, (name,), "file") for message in case.messages]
    findings += data_warnings(usable, classes)
    if settings.preprocessing.normalize is None:
        findings += unnamed_ct(usable, dataset.modality)
    split: Split | None = None
    try:
        split = split_as_set(dataset.cases, settings.split, settings.seed, dataset.split_file)
    except MedsegError as error:
        findings.append(Issue("error", str(error)))
    findings += same_scan_findings(usable, split)
    findings += classes_by_subset(usable, classes, split)
    plan, wrong = try_plan(config, settings, dataset, classes, usable, split)
    if plan and split:
        learned = [case for case in by_id(dataset.cases, split.train + split.val) if case.id in usable.cases]
        wrong += foretold_cache(learned, plan, classes, cache)
    findings = sorted(findings + wrong, key=lambda finding: finding.level)
    numbers = overview(dataset, classes, usable, split)
    numbers["per_case"] = case_rows(dataset, classes, usable, split, findings)
    with in_use(cache):
        cases = by_id(dataset.cases, tuple(shown_cases(usable, findings, usable.same_scans)))
        shown = thumbnails(cases, classes, marks_of(findings, usable, classes), cache, with_progress_bar)
    run_dir = directory_of(settings)
    with recorded(run_dir) as result:
        config_path, page_path = run_dir / "config.yaml", run_dir / "inspect.html"
        write_config(config_path, config)
        write_json(run_dir / "plan.json", plan)
        listed = [asdict(finding) for finding in findings]
        write_json(run_dir / "inspect.json", {"format": FORMAT, **numbers, "findings": listed})
        name, saved = (
            data_name(vars(settings.dataset)),
            config_path.read_text(encoding="utf-8"),
        )
        write_text(page_path, inspect_page(name, numbers, findings, usable.same_scans, shown, plan, saved))
        show(Terminal(), name, numbers, findings, plan)
        log.info("run directory: %s", run_dir)
        log.info("page with thumbnails: %s", page_path)
        errors = sum(finding.level == "error" for finding in findings)
        status = ("some_failed" if usable.cases else "failed") if errors else "done"
        result |= {"status": status, "reason": f"{errors} error(s) in the data set" if errors else ""}
    return result


def try_plan(
    config: dict[str, Any],
    settings: TrainSettings,
    dataset: Dataset,
    classes: LabelMap,
    usable: Fingerprint,
    split: Split | None,
) -> tuple[dict[str, Any] | None, list[Issue]]:
    """Return the plan that ``train`` would make of the cases that can be used, or why it cannot."""
    learned = split.train + split.val if split else ()
    fingerprint = Fingerprint({name: usable.cases[name] for name in learned if name in usable.cases})
    if not fingerprint.cases:
        return None, []
    try:
        check_folds(settings, by_id(dataset.cases, split.train if split else ()))
        devices = pick_devices(settings.trainer.accelerator, settings.trainer.devices)
        plan = plan_run(config, settings, fingerprint, classes, dataset.modality, devices)
    except MedsegError as error:
        return None, [Issue("error", str(error))]
    if advice := offer(plan, fingerprint, settings):
        log.info("%s", advice)
    return plan, []


def foretold_cache(cases: Sequence[Case], plan: dict[str, Any], classes: LabelMap, folder: Path) -> list[Issue]:
    """Log how large the preprocessed cases of a training will be; return an error where there is no space for them."""
    preprocessor = Preprocessor(**plan["preprocessing"])
    try:
        _, missing = look_up(cases, preprocessor, classes, folder)
        if missing:
            total = foretold_bytes(missing, preprocessor, classes)
            log.info("a training will preprocess %d cases, about %s, into %s", len(missing), amount(total), folder)
            check_space(len(missing), total, folder)
    except MedsegError as error:
        return [Issue("error", str(error))]
    return []


def same_scan_findings(usable: Fingerprint, split: Split | None) -> list[Issue]:
    """Return scans in two subsets of the split, then probable copies of one; ``examine`` has named equal images."""
    subset_of = subsets_of(split)
    findings = []
    for same in sorted(usable.same_scans, key=lambda same: not is_split_apart(same, subset_of)):
        leaks = is_split_apart(same, subset_of)
        where = f", in two subsets of the split ({', '.join(subset_of.get(name, 'unused') for name in same.cases)})"
        certainty = "the same scan" if same.reason == EQUAL else "probably the same scan"
        if leaks or same.reason != EQUAL:
            cure = "; one group would keep them together (dataset.group, dataset.group_file)" if leaks else ""
            text = f"{certainty}{where if leaks else ''}; {same.reason}{cure}"
            findings.append(Issue("warning", text, same.cases, "same scan"))
    return findings
