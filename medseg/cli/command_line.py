"""The command line: arguments become a checked config, the config one job, the job an exit status.

Exit statuses: 0 all done; 1 nothing could be done; 2 a bug (with a traceback); 3 some cases or jobs failed; 130
interrupted. Nothing heavy is imported before the job is known, and help imports not even Hydra.
"""

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from medseg import __version__
from medseg.cli.arguments import parse_flags, split, sweep_to_resume, value_of
from medseg.cli.hydra_main import completed, hand_over, plain
from medseg.cli.job import JOBS, attempt, configure_logging, ended, refuse, status_of
from medseg.cli.overrides import (
    RESUMED,
    Sources,
    absent_paths,
    check,
    compose,
    merging,
    own_sources,
    quote,
    quoted,
    unquoted_sweeps,
)
from medseg.config.check import lies_below, resolve
from medseg.config.instantiate import named_targets
from medseg.config.schema import CONF, SAVED
from medseg.config.untrusted import RUN_NODES, config_of_run, outside_paths
from medseg.errors import MedsegError
from medseg.system.relaunch import QUIET

if TYPE_CHECKING:
    from omegaconf import DictConfig

RESUMABLE = ("train", "pretrain")

FIXED = {"explicit_keys", "seed", "dataset", "split", "preprocessing", "plan", "model"}
MOVABLE = ("dataset.root", "dataset.group_file", "dataset.annotated_file", "dataset.corrections")
"""What a resumed run keeps, and what of it may have moved."""

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
    if folder := sweep_to_resume(settings):
        from medseg.cli.sweep import resumed_sweep

        settings, flags = resumed_sweep(folder, settings, flags, options)
    elif command in RESUMABLE:
        settings, flags = resumed(settings, flags, options)
    return run(argv, options, flags, settings, folder)


def help_text(command: str | None) -> str:
    """Return the help that ``scripts/render_help.py`` rendered; composing it would take a second."""
    return (CONF / "help" / f"{command or 'medseg'}.txt").read_text("utf-8")


def resumed(settings: list[str], flags: list[str], options: Namespace) -> tuple[list[str], list[str]]:
    """For ``resume=RUN`` take RUN's saved config in place of medseg's own, to be written into RUN again.

    Hydra never reads the file, in which a ``hydra`` node or a list of defaults would act: it gets what was checked.

    Raises:
        MedsegError: RUN has no config that can be taken, or the line asks for what a resumed run cannot do.
    """
    from hydra.core.config_store import ConfigStore

    value = value_of("resume", settings)
    if not value:
        return settings, flags
    folder = Path(resolve({"resume": value})["resume"])
    if not (folder / "config.yaml").is_file():
        raise MedsegError(f"resume={folder}: no config.yaml in it. Give the directory of a run.")
    names = {setting.partition("=")[0].lstrip("+~") for setting in settings}
    if options.multirun or "run_dir" in names:
        raise MedsegError("resume goes on with one run in its own directory: leave out -m and run_dir.")
    groups = {path.name for path in CONF.iterdir() if path.is_dir()}
    if chosen := sorted(name for name in names if name in groups or name.endswith("._target_")):
        raise MedsegError(
            f"resume goes on with the run's own {', '.join(chosen)}: leave the choice out, or start anew."
        )
    if fixed := sorted(name for name in names if lies_below(name, FIXED) and name not in MOVABLE):
        raise MedsegError(
            f"resume={folder}: {', '.join(fixed)} cannot change in a run that has begun, whose split, network and plan "
            "are settled. Leave it out, or start anew."
        )
    trust = {
        *(value_of("trust", settings) or ()),
        *(named_targets(Path(options.config_dir)) if options.config_dir else ()),
    }
    config = config_of_run(folder, trust, {name.lstrip("+~") for name in names}, RUN_NODES)
    if config.get("command") not in RESUMABLE:
        raise MedsegError(
            f"resume={folder}: its config is one of command={config.get('command')}. Give the run of a training."
        )
    ConfigStore.instance().store(name=RESUMED, node=config)
    options.config_path, options.config_name = None, RESUMED
    where = ["--config-name", RESUMED]  # of two flags the last counts
    return [*settings, f"run_dir={quote(str(folder))}", *QUIET], [*flags, *where]


def run(argv: list[str], options: Namespace, flags: list[str], settings: list[str], resumed: Path | None) -> int:
    """Check the settings, then show the config or run the job, or the jobs of a sweep.

    ``resumed`` is the folder that the settings of a sweep are from.
    """
    config_dir = Path(options.config_dir) if options.config_dir else None
    if config_dir:
        sys.path.append(str(config_dir.resolve()))
    is_own = options.config_name in JOBS and not (options.config_path or config_dir)
    own = own_sources(options.config_name) if is_own else None
    sources = own or Sources(Path(options.config_path or CONF), options.config_name, config_dir)
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
    refuse(absent_paths(checked))
    if resumed:
        refuse([f"{key}: {text}" for key, text in outside_paths(checked.composed[0], resumed).items()])
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
