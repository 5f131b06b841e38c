"""What is said of a sweep at its end, and by ``medseg compare`` at any time: its tables, its page, its best jobs."""

import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from textwrap import TextWrapper

from medseg.config.untrusted import SWEEP, read_json_object
from medseg.errors import MedsegError
from medseg.evaluation.pages.text_table import few, print_tables
from medseg.evaluation.report.tables import tables_of
from medseg.sweeps.rankings import JobResult, Ranking, counts, rankings
from medseg.sweeps.record import CROSS_VALIDATION, are_complete_folds, read, states_of
from medseg.sweeps.report.page import result_of, write_page
from medseg.sweeps.tables import OF_ENSEMBLE, ranked_tables, state_table
from medseg.system.locks import is_held
from medseg.system.printable import printable
from medseg.system.terminal import Terminal

log = logging.getLogger(__name__)

INDENT = "      "
INDENTED = TextWrapper(
    80, initial_indent=INDENT, subsequent_indent=INDENT, break_long_words=False, break_on_hyphens=False
)


def show_sweep(folder: Path) -> None:
    """Print a sweep's jobs ranked, where the others are, and the best with the command to use it; write its page.

    Its record is only read, as the sweep may be under way.
    """
    terminal, states = Terminal(), states_of(folder)
    not_ended = {state["job"] for state in states}
    ranked = rankings([job for job in read(folder) if job["job"] not in not_ended])
    terminal.print(*ranked_tables(ranked))
    if begun := [state for state in states if state["state"] != "waiting"]:
        terminal.print(state_table(begun), "", sep="\n")
    if waiting := [str(state["job"]) for state in states if state["state"] == "waiting"]:
        print(f"not begun: job {few(waiting, most=12)}")
    if sum(bool(ranking.best) for ranking in ranked) > 1:
        print("jobs of different tables were validated on different cases: their scores have no common order")
    if (metrics := folder / CROSS_VALIDATION / "metrics.json").is_file():
        print_tables(tables_of(read_json_object(metrics)), terminal)
        print(printable(f"all cases out of fold: {metrics.with_name('report.html')}"))
    if (test := folder / "test" / "report.html").is_file():
        result = result_of(folder, Path("test"), OF_ENSEMBLE)
        print(printable(f"{OF_ENSEMBLE}: {f'{result.line}; ' if result else ''}{test}"))
    for line in (best := winners(folder, ranked)):
        print(printable(line))
    is_at_work = any(state["state"] not in ("waiting", "stopped") for state in states)
    # At a sweep's end its own process is here, which must not ask for its own lock.
    if not read_json_object(folder / SWEEP).get("has_ended") and not is_at_work and not is_held(folder):
        print(printable(f"the sweep has not ended: resume={folder} goes on with it"))
    try:
        write_page(folder, ranked, states, best)
        print(printable(f"page: {folder / 'sweep.html'}"))
    except MedsegError as error:  # someone else's sweep
        log.warning("no sweep.html: %s", error)
    print(printable(f"sweep folder: {folder}"))


def winners(folder: Path, ranked: Sequence[Ranking]) -> list[str]:
    """Return for the best of each ranking lines with its checkpoint, its name, and the command to use it.

    Complete folds are named as what they are.
    """
    jobs = [job for ranking in ranked for job in ranking.jobs]
    if are_complete_folds(folder, jobs):
        return [f"the folds are an ensemble: checkpoint={folder}", how_to_use(jobs[0], str(folder))]
    lines = []
    for ranking in ranked:
        is_chosen = len(ranked) == 1 or sum(map(counts, ranking.jobs)) > 1  # else it is best of itself alone
        if ranking.best and is_chosen:
            numbers = ", ".join(str(job["job"]) for job in ranking.best)
            paths = [str(folder / str(job["job"])) for job in ranking.best]
            checkpoint = paths[0] if len(paths) == 1 else f"[{','.join(paths)}]"
            lines.append(f"best: job {numbers}, checkpoint={checkpoint}")
            lines += INDENTED.wrap(ranking.best[0]["name"]) if len(paths) == 1 else []
            lines.append(how_to_use(ranking.best[0], checkpoint))
    return lines


def how_to_use(job: JobResult, checkpoint: str) -> str:
    """Return the command that uses what a job like this one has trained: pre-trained weights begin a training."""
    if job["validated"]["metric"] == "dice":
        words, rest = ["predict", f"checkpoint={checkpoint}"], "input=… output=…"
    else:
        words, rest = ["train", f"finetune.checkpoint={checkpoint}"], "dataset=…"
    return f"{INDENT}{shlex.join(['medseg', *words])} {rest}"
