"""A sweep as tables: its jobs ranked on the terminal, and where those are that have not ended."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from statistics import fmean
from typing import Any, Literal

from rich import box
from rich.markup import escape
from rich.table import Table

from medseg.config.check import is_number
from medseg.sweeps.rankings import REPEATED, Ranking
from medseg.sweeps.record import GIVEN_UP

STATE_HEADERS = ("job", "overrides", "state", "epoch", "val", "left", "device")
"""The columns of a table of jobs under way."""

MARK = "! "
"""What stands before the score of a job that has not learned some classes."""

OF_ENSEMBLE = "test of the ensemble"
"""What the report in the folder ``test`` of a sweep of folds is called."""

LONG = 42
"""Letters of an override for which 80 columns have room beside all other columns of the ranked table."""


def ranked_tables(ranked: Sequence[Ranking]) -> list[Table]:
    """Return a table for each ranking by ``score``; the test's stands beside it and chooses nothing.

    Overrides that all jobs share are left out. Where jobs repeat a setting, a row before theirs has the mean. A table
    without a frame follows where jobs have failed, or have not learned some classes, with a line for each that is cut
    to the width; the score of the latter is marked.
    """
    jobs = [job for ranking in ranked for job in ranking.jobs]
    # on 80 columns the overrides need the room, as none is to be broken
    has_test = any(job["test_score"] is not None for job in jobs)
    has_status = any(job["status"] != "done" for job in jobs)
    has_seconds = all(len(word) <= LONG for job in jobs for word in job["name"].split())
    several = []
    for ranking in ranked:
        style: dict[str, Any] = {"box": box.SIMPLE_HEAD, "pad_edge": False, "padding": (0, 1, 0, 0)}
        table = Table(title=escape(ranking.title), title_justify="left", **style)
        table.add_column("job", justify="right", no_wrap=True)
        table.add_column("overrides", overflow="fold")
        for header in ("val", *["test"] * has_test, *["status"] * has_status, *["seconds"] * has_seconds):
            table.add_column(header, justify="left" if header == "status" else "right", no_wrap=True)
        for setting in ranking.settings:
            if len(scores := setting.scores) > 1:
                words = setting.jobs[0]["name"].split()
                own = " ".join(word for word in words if word.partition("=")[0] not in REPEATED)
                table.add_row("", escape(f"{own}: {setting.spread}" if own else setting.spread), f"{fmean(scores):.4f}")
            for job in setting.jobs:
                cells = [str(job["job"]), escape(job["name"])]
                for score in (job["score"], job["test_score"])[: 1 + has_test]:
                    cells.append("-" if score is None else f"{score:.4f}")
                cells[2] = MARK * bool(job["unlearned"]) + cells[2]
                cells += [job["status"]] * has_status
                cells += ["-" if job["seconds"] is None else f"{job['seconds']:.0f}"] * has_seconds
                table.add_row(*cells, style="dim" if job["status"] == GIVEN_UP else None)
        reasons = Table.grid()
        reasons.add_column(no_wrap=True)
        for job in ranking.jobs:
            if job["status"] not in ("done", GIVEN_UP) and (reason := reason_of(job)):
                reasons.add_row(escape(f"job {job['job']}: {reason}"))
            if job["unlearned"]:
                reasons.add_row(escape(f"{MARK}job {job['job']}: not learned: {', '.join(job['unlearned'])}"))
        several += [table, reasons] if reasons.rows else [table]
    return several


def reason_of(job: Mapping[str, Any]) -> str:
    """Return in a line why a job ended as it did."""
    return " ".join((job.get("reason") or "").split())


def state_rows(states: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return the cells of ``STATE_HEADERS`` for jobs under way, each as ``states_of`` of ``record.py`` has it."""
    rows = []
    for state in states:
        epochs = [str(state[name]) for name in ("epoch", "epochs") if state.get(name)]
        score, left = state.get("score"), state.get("seconds_left")
        cells = [str(state["job"]), state["name"], str(state["state"]), "/".join(epochs)]
        cells.append(MARK * bool(state.get("unlearned")) + f"{score:.4f}" if is_number(score) else "")
        cells.append(str(timedelta(seconds=int(left))) if left is not None and is_number(left) else "")
        rows.append([*cells, str(state.get("device") or "")])
    return rows


def state_table(states: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table of jobs under way, a line each that is cut to the width."""
    table = Table(box=None, padding=(0, 1, 0, 0), expand=True)
    widths = {"state": 9, "epoch": 7, "val": 6, "left": 7}  # so that columns do not move when values come
    for header in STATE_HEADERS:
        justify: Literal["left", "right"] = "left" if header in ("overrides", "state", "device") else "right"
        ratio = 1 if header == "overrides" else None
        table.add_column(header, justify=justify, no_wrap=True, ratio=ratio, min_width=widths.get(header))
    for cells in state_rows(states):
        table.add_row(*map(escape, cells))
    return table
