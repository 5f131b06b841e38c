"""A sweep as tables on the terminal: its jobs ranked, and where those are that have not ended."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from statistics import fmean
from typing import Any, Literal

from rich.markup import escape
from rich.table import Table

from medseg.sweeps.rankings import GIVEN_UP, REPEATED, Ranking, differing

HEADERS: "dict[str, Literal['left', 'right']]" = {
    "job": "right",
    "overrides": "left",
    "state": "left",
    "epoch": "right",
    "val": "right",
    "left": "right",
    "device": "left",
}
"""The columns of the table of jobs under way, and on which side their cells stand."""


def ranked_tables(ranked: Sequence[Ranking]) -> list[Table]:
    """Return a table for each ranking by ``score``; the test's stands beside it and chooses nothing.

    Overrides that all jobs share are left out. Where jobs repeat a setting, a row before theirs has the mean. A table
    without a frame follows where jobs have failed, with the reason of each in a line that is cut to the width.
    """
    jobs = [job for ranking in ranked for job in ranking.jobs]
    lines = differing([job["overrides"] for job in jobs])
    shown = {job["job"]: line for job, line in zip(jobs, lines, strict=True)}
    has_test = any(job["test_score"] is not None for job in jobs)  # on 80 columns the overrides need the room
    several = []
    for ranking in ranked:
        table = Table("job", title=escape(ranking.title), title_justify="left")
        for header in ("overrides", "val", *["test"] * has_test, "status", "seconds"):
            table.add_column(header, overflow="fold")
        for setting in ranking.settings:
            if len(scores := setting.scores) > 1:
                words = shown[setting.jobs[0]["job"]].split()
                own = " ".join(word for word in words if word.partition("=")[0] not in REPEATED)
                table.add_row("", escape(f"{own}: {setting.spread}" if own else setting.spread), f"{fmean(scores):.4f}")
            for job in setting.jobs:
                cells = [str(job["job"]), escape(shown[job["job"]])]
                for score in (job["score"], job["test_score"])[: 1 + has_test]:
                    cells.append("-" if score is None else f"{score:.4f}")
                cells += [job["status"], "-" if job["seconds"] is None else f"{job['seconds']:.0f}"]
                table.add_row(*cells)
        reasons = Table.grid()
        reasons.add_column(no_wrap=True)
        for job in ranking.jobs:
            if job["status"] not in ("done", GIVEN_UP) and (reason := " ".join((job.get("reason") or "").split())):
                reasons.add_row(escape(f"job {job['job']}: {reason}"))
        several += [table, reasons] if reasons.rows else [table]
    return several


def state_table(states: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table of jobs under way, a line each that is cut to the width.

    A state has ``job``, ``overrides`` and ``state``, and what a training's ``progress.json`` tells.
    """
    table = Table(box=None, padding=(0, 1, 0, 0), expand=True)
    for header, justify in HEADERS.items():
        table.add_column(header, justify=justify, no_wrap=True, ratio=1 if header == "overrides" else None)
    for state, overrides in zip(states, differing([state["overrides"] for state in states]), strict=True):
        epochs = [str(state[name]) for name in ("epoch", "epochs") if state.get(name)]
        score, left = state.get("score"), state.get("seconds_left")
        table.add_row(
            *(str(state["job"]), escape(overrides), escape(str(state["state"])), "/".join(epochs)),
            "" if score is None else f"{score:.4f}",
            "" if left is None else str(timedelta(seconds=int(left))),
            escape(str(state.get("device", ""))),
        )
    return table
