"""The command line: arguments become a checked config, the config one job, the job an exit status.

Exit statuses: 0 all done; 1 nothing could be done; 2 a bug (with a traceback); 3 some cases or jobs failed; 128 and the
number of the signal that ended the job: 130 for Ctrl-C, 143 for SIGTERM, 138 for SIGUSR1. Nothing heavy is imported
before the job is known, and help imports not even Hydra.
"""

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg import __version__
from medseg.cli.arguments import parse_flags, split
from medseg.cli.hydra_main import completed, hand_over, plain
from medseg.cli.job import JOBS, attempt, configure_logging, counted, ended, refuse, status_of
from medseg.cli.overrides import absent_paths, check, is_synthetic, unquoted_sweeps
from medseg.cli.quoting import merging, quoted
from medseg.cli.resume import made_elsewhere, resumed
from medseg.cli.sources import Sources, compose, own_sources
from medseg.config.check import is_interpolation, lies_below, resolve
from medseg.config.extras import missing_extras
from medseg.config.schema import CONF, SAVED
from medseg.config.untrusted import outside_paths
from medseg.errors import MedsegError

if TYPE_CHECKING:
    from omegaconf import DictConfig

WRITING = ("cache_dir", "logger")
"""Keys that say where medseg writes, or sends, beside the run directory."""

MADE = ("dataset.root", "dataset.layout.root")
"""Keys that say where the synthetic data set is made where it is not there."""

INTERNAL = ("help", "common=", "command=", f"dataset={SAVED}", f"inference={SAVED}")
"""What Hydra completes for folders, options and keys of ``conf`` that nobody chooses from."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, of the process's own arguments unless others are given, and return its exit status."""
    if argv is None:
        return ended(status_of(answer, sys.argv[1:]))
    return status_of(answer, list(argv))


def answer(argv: list[str]) -> int:
    """Print help, a version or completions, or run a job."""
    if {"-sc", "--shell-completion"} & set(argv):
        return complete(argv)
    command, flags, settings = split(argv)
    if not argv or {"-h", "--help"} & set(flags):
        print(help_text(command), end="")
        return 0
    if "--version" in flags:
        print(f"medseg {__version__}")
        return 0
    options = parse_flags(flags)
    refuse(unquoted_sweeps(settings) if options.multirun else ())
    settings = [merging(quoted(setting)) for setting in settings]
    if command:
        flags += [] if options.config_name else ["--config-name", command]
        options.config_name = options.config_name or command
    elif not options.config_name:
        raise MedsegError(f"name a command first: {', '.join(JOBS)}.")
    if options.hydra_help or options.info:
        return hand_over([*flags, *settings])
    left, flags, folder = resumed(command, settings, flags, options)
    return 0 if left is None else run(argv, options, flags, left, folder)


def help_text(command: str | None) -> str:
    """Return the help that ``scripts/render_help.py`` rendered; composing it would take a second."""
    return (CONF / "help" / f"{command or 'medseg'}.txt").read_text("utf-8")


def run(argv: list[str], options: Namespace, flags: list[str], settings: list[str], resumed_sweep: Path | None) -> int:
    """Check the settings, then show the config or run the job, or the jobs of a sweep.

    ``resumed_sweep`` is the folder that the settings of a sweep are from.
    """
    if options.config_dir:
        sys.path.append(str(Path(options.config_dir).resolve()))
    is_own = options.config_name in JOBS and not (options.config_path or options.config_dir)
    own = own_sources(options.config_name) if is_own else None
    sources = own or Sources.of(options)
    if "split.fold=all" in settings:
        from medseg.cli.sweep import with_all_folds

        settings, flags, options.multirun = with_all_folds(settings, sources), [*flags, "-m"], True
    if any(setting.startswith("search=") for setting in settings):
        from medseg.cli.sweep import with_space

        settings, flags, options.multirun = with_space(settings, sources), [*flags, "-m"], True
    checked = check(sources, settings, multirun=options.multirun, values_needed=not options.cfg)
    refuse(list(checked.problems.values()))
    if options.cfg:
        return hand_over([*flags, *settings])
    extras = dict.fromkeys(line for config in checked.composed for line in missing_extras(config))
    refuse([*absent_paths(checked), *extras])
    if resumed_sweep:
        outside = {key: text for each in checked.composed for key, text in outside_paths(each, resumed_sweep).items()}
        outside |= {key: text for each in checked.composed for key, text in made_elsewhere(each).items()}
        writing = WRITING + (MADE if any(map(is_synthetic, checked.composed)) else ())
        swept = {
            key: "a sweep over it is not taken from a file"
            for key in checked.swept
            if lies_below(key, writing) or any(lies_below(each, [key]) for each in writing)
        }
        again = {setting.partition("=")[0].lstrip("+~") for setting in split(argv)[2]}  # which this line gives
        problems = {key: text for key, text in (swept | outside).items() if key not in again}
        refuse([f"{key}: {text}. Give it again if it is meant." for key, text in problems.items()])
    if not (options.multirun or counted()):  # of several processes, another may have begun to write there
        refuse_full_run_dir(checked.composed[0])
    configure_logging()
    if options.multirun:
        from medseg.cli.sweep import sweep

        return sweep(argv, flags, settings, checked, sources)
    is_hydras = any(setting.lstrip("+~").startswith("hydra") for setting in settings)
    if own and not (is_hydras or options.package or options.experimental_rerun or options.resolve):
        # All that Hydra would do is to compose a config of medseg's own, which ``check`` has done, but for settings
        # that differ: one is given twice, or Hydra does not take it
        is_composed = sorted(settings) == sorted(checked.settings[0])
        config = checked.composed[0] if is_composed else compose(sources, sources.loader(), settings)
        return attempt(completed(config, sources, settings), argv, () if is_composed else None)[0]
    statuses: list[int] = []

    def run_composed(composed: "DictConfig") -> None:
        from hydra.core.hydra_config import HydraConfig

        config = plain(composed, sources, list(HydraConfig.get().overrides.task))
        statuses.append(attempt(config, argv)[0])

    hand_over([*flags, *settings], run_composed)
    return statuses[-1]


def refuse_full_run_dir(config: dict[str, Any]) -> None:
    """Refuse a new run in a directory that is not empty before the data are read."""
    run_dir = config.get("run_dir")
    if run_dir and not config.get("resume") and not is_interpolation(run_dir):
        from medseg.jobs.rundir import refuse_full

        refuse_full(Path(resolve({"run_dir": run_dir})["run_dir"]), config["command"])


def complete(argv: list[str]) -> int:
    """Answer a shell's query for completions: the commands here, settings by Hydra."""
    words = os.environ.get("COMP_LINE", "").split(" ")
    if len(words) < 2:
        return hand_over([*argv, "--config-name", "train"])
    if len(words) == 2:
        print(*(name for name in JOBS if name.startswith(words[1])))
        return 0
    command = words[1] if words[1] in JOBS else "train"
    os.environ["COMP_LINE"] = " ".join([words[0], *words[2:]])
    with redirect_stdout(StringIO()) as answers:
        hand_over([*argv, "--config-name", command])
    print(*(word for word in answers.getvalue().split() if word not in INTERNAL))
    return 0
