"""The command line: arguments become a checked config, the config one job, the job an exit status.

Exit statuses: 0 all done; 1 nothing could be done; 2 a bug (with a traceback); 3 some cases or jobs failed; 128 and the
number of the signal that ended the job: 130 for Ctrl-C, 143 for SIGTERM, 138 for SIGUSR1. Nothing heavy is imported
before the job is known, and help imports not even Hydra.
"""

import json
import logging
import os
import shlex
import signal
import sys
import threading
import time
import traceback
from argparse import ArgumentError, ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg import __version__
from medseg.cli.overrides import (
    RESUMED,
    Check,
    Sources,
    absent_paths,
    check,
    compose,
    explicit_keys,
    merging,
    own_sources,
    quote,
    quoted,
    syntax_problem,
    unquoted_sweeps,
)
from medseg.config.check import check_values, dotted, escape, lies_below, look_up, resolve
from medseg.config.instantiate import named_targets, own_targets, with_current_names
from medseg.config.schema import CONF, SAVED
from medseg.config.untrusted import RUN_NODES, config_of_run
from medseg.errors import MedsegError, listing, nearest
from medseg.io.limits import DEFAULT_MAX_GB, Limit
from medseg.io.warnings import begin_job
from medseg.system.files import remove_unfinished
from medseg.system.memory import MORE_MEMORY, enough_memory
from medseg.system.printable import PrintableFormatter, printable
from medseg.system.relaunch import QUIET, single_job
from medseg.system.running.signals import heeded

if TYPE_CHECKING:
    from omegaconf import DictConfig

JOBS = {
    "train": "train.train",
    "pretrain": "train.pretrain",
    "eval": "evaluate.evaluate",
    "predict": "predict.predict",
    "compare": "evaluate.compare",
    "inspect": "inspect.inspect",
    "export": "export",
    "cache": "cache",
    "doctor": "doctor",
}
"""Commands, and the modules of ``medseg.jobs`` that do them."""

WITH_VALUE = ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp", "--package", "-p", "--cfg", "-c")
"""Hydra's flags that are followed by a value."""

RESUMABLE = ("train", "pretrain")
AUTO = "auto"

FIXED = {"explicit_keys", "seed", "dataset", "split", "preprocessing", "plan", "model"}
MOVABLE = ("dataset.root", "dataset.group_file", "dataset.annotated_file", "dataset.corrections")
"""What a resumed run keeps, and what of it may have moved."""

INTERNAL = ("help", "common=", "command=", f"dataset={SAVED}", f"inference={SAVED}")
"""What Hydra completes for folders, options and keys of ``conf`` that nobody chooses from."""

MAXIMISING = {
    "hydra.sweeper.direction": "maximize",
    "hydra.sweeper.optim.maximize": "true",
    "hydra.sweeper.ax_config.experiment.minimize": "false",
}
"""Where Optuna's, Nevergrad's and Ax's sweepers are told that more is better, which none takes for granted."""

EXIT_STATUS = {"done": 0, "failed": 1, "some_failed": 3}
BUG, SOME_FAILED = 2, 3

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, of the process's own arguments unless others are given, and return its exit status."""
    if argv is None:
        return ended(status_of(answer, sys.argv[1:]))
    return status_of(answer, list(argv))


def run_config() -> int:
    """Run the job of a config, read as JSON from standard input, as a process of its own (see ``relaunch.start``)."""

    def run_job(argv: list[str]) -> int:
        configure_logging()
        return attempt(json.load(sys.stdin), argv)[0]

    return ended(status_of(run_job, sys.argv[1:]))


def status_of(work: Callable[[list[str]], int], argv: list[str]) -> int:
    """Return the exit status of some work, or that of what it raises, which is printed."""
    try:
        with heeded():
            return work(argv)
    except MedsegError as error:
        return complain(str(error))
    except KeyboardInterrupt as stop:
        return complain(str(stop) or "interrupted", 128 + getattr(stop, "number", signal.SIGINT))
    except SystemExit as end:  # Hydra's way out, after it has printed what was wrong
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception:
        print_traceback()
        return BUG


def ended(status: int) -> int:
    """Return the status; end the process with it where threads of ours still compute.

    They cannot be stopped and may take long, and PyTorch aborts a process that ends under them by itself.
    """
    if any(thread.name.startswith("medseg-") for thread in threading.enumerate()):
        remove_unfinished()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def complain(message: str, status: int = 1) -> int:
    """Print what went wrong and return the exit status for it."""
    print(printable(f"medseg: {message}"), file=sys.stderr)
    return status


def print_traceback() -> None:
    """Print the traceback of the exception that is being handled."""
    print(printable(traceback.format_exc()), end="", file=sys.stderr)


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
    if command in RESUMABLE:
        if value_of("resume", settings) == AUTO:
            settings = begun_or_resumed(command, settings, options)
            if not settings:
                return 0
        settings, flags = resumed(settings, flags, options)
    return run(argv, options, flags, settings)


def split(argv: list[str]) -> tuple[str | None, list[str], list[str]]:
    """Split a command line into the command, the flags with their values, and the ``key=value`` settings.

    Raises:
        MedsegError: there is no such command.
    """
    command: str | None = None
    flags: list[str] = []
    settings: list[str] = []
    rest = iter(argv)
    for argument in rest:
        if argument.startswith("-"):
            flags += argument.split("=", 1) if argument.startswith("--") else [argument]
            flags += [value for value in [next(rest, None)] if value] if argument in WITH_VALUE else []
        elif command is None and not settings and "=" not in argument and not argument.startswith("~"):
            command = argument
        else:
            settings.append(argument)
    if command is not None and command not in JOBS:
        raise MedsegError(f"unknown command {command!r}.{nearest(command, JOBS)} Commands: {', '.join(JOBS)}.")
    return command, flags, settings


def help_text(command: str | None) -> str:
    """Return the help that ``scripts/render_help.py`` rendered; composing it would take a second."""
    return (CONF / "help" / f"{command or 'medseg'}.txt").read_text("utf-8")


def parse_flags(flags: list[str]) -> Namespace:
    """Parse Hydra's own flags.

    Raises:
        MedsegError: an unknown flag, a folder that is not there, or flags that exclude each other.
    """
    from hydra._internal.utils import get_args_parser

    with unchecked_help():
        parser = get_args_parser()
    parser.exit_on_error = False
    try:
        options, unknown = parser.parse_known_args(flags)
    except ArgumentError as error:
        raise MedsegError(str(error)) from error
    if unknown:
        known = [name for action in parser._actions for name in action.option_strings]
        raise MedsegError(f"unknown option {unknown[0]!r}.{nearest(unknown[0], known)} Settings are written key=value.")
    if options.config_dir and not Path(options.config_dir).is_dir():
        raise MedsegError(f"--config-dir {options.config_dir}: no such folder.")
    if options.cfg and options.multirun:
        raise MedsegError("--cfg shows the config of one job; leave out -m.")
    return options


def begun_or_resumed(command: str, settings: list[str], options: Namespace) -> list[str]:
    """For ``resume=auto`` return the settings that begin a run in ``run_dir``, or that go on with the one there.

    A run goes on with what of the line differs from its config. None are returned, with a word about it, of a run that
    has come to its end and has a test, where nothing differs.

    Raises:
        MedsegError: there is no ``run_dir``, or the settings are wrong.
    """
    from medseg.jobs.rundir import found_in, read_result

    where = value_of("run_dir", settings)
    if not where or options.multirun:
        raise MedsegError("resume=auto goes on with the run in run_dir, or begins it there: give run_dir=DIR, no -m.")
    folder = Path(resolve({"run_dir": where})["run_dir"])
    given = [setting for setting in settings if not setting.startswith(("resume=", "run_dir="))]
    if (found := found_in(folder, command)) not in ("resumable", "ended"):
        return [*given, f"run_dir={quote(str(folder))}"]
    config_dir = Path(options.config_dir) if options.config_dir else None
    sources = Sources(Path(options.config_path or CONF), options.config_name, config_dir)
    checked = check(sources, given, values_needed=False)
    refuse([*checked.problems.values()])

    names = [setting.partition("=")[0].lstrip("+~") for setting in given]
    own, theirs = checked.composed[0], config_of_run(folder, trusted(given, options), names, RUN_NODES)

    def differs(setting: str, name: str) -> bool:
        if name == "trust" or name.startswith("hydra"):
            return True
        keys = [name]
        if name in sources.groups:  # an option sets values of its own node, or of others; some are given by themselves
            with_it, without = (dict(dotted(sources.skeleton(*each))) for each in ([setting], []))
            keys = [key for key in with_it if lies_below(key, {name}) or with_it[key] != without.get(key)]
            keys = [key for key in keys if not (isinstance(with_it[key], dict) or lies_below(key, {*names} - {name}))]
        return any(look_up(own, key.split("."))[:2] != look_up(theirs, key.split("."))[:2] for key in keys)

    changed = [setting for setting, name in zip(given, names, strict=True) if differs(setting, name)]
    if found == "ended" and not changed and (command != "train" or read_result(folder / "result.json")["test_score"]):
        print(printable(f"resume=auto: the run in {folder} has ended, and nothing is left to do"))
        return []
    return [*changed, f"resume={quote(str(folder))}"]


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
    config = config_of_run(folder, trusted(settings, options), {name.lstrip("+~") for name in names}, RUN_NODES)
    if config.get("command") not in RESUMABLE:
        raise MedsegError(
            f"resume={folder}: its config is one of command={config.get('command')}. Give the run of a training."
        )
    ConfigStore.instance().store(name=RESUMED, node=config)
    options.config_path, options.config_name = None, RESUMED
    where = ["--config-name", RESUMED]  # of two flags the last counts
    return [*settings, f"run_dir={quote(str(folder))}", *QUIET], [*flags, *where]


def trusted(settings: Sequence[str], options: Namespace) -> set[str]:
    """Return the names that a command line trusts: by ``trust``, and by a ``--config-dir`` that names them."""
    named = named_targets(Path(options.config_dir)) if options.config_dir else ()
    return {*(value_of("trust", settings) or ()), *named}


def value_of(key: str, settings: Sequence[str]) -> Any:
    """Return the value that a command line sets a key to, None where it does not set it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    setting = next((setting for setting in reversed(settings) if setting.startswith(f"{key}=")), None)
    if setting is None:
        return None
    try:
        return OverridesParser.create().parse_override(setting).value()
    except HydraException as error:
        raise MedsegError(syntax_problem(setting)) from error


def run(argv: list[str], options: Namespace, flags: list[str], settings: list[str]) -> int:
    """Check the settings, then show the config or run the job, or the jobs of a sweep."""
    config_dir = Path(options.config_dir) if options.config_dir else None
    if config_dir:
        sys.path.append(str(config_dir.resolve()))
    is_own = options.config_name in JOBS and not (options.config_path or config_dir)
    own = own_sources(options.config_name) if is_own else None
    sources = own or Sources(Path(options.config_path or CONF), options.config_name, config_dir)
    checked = check(sources, settings, multirun=options.multirun, values_needed=not options.cfg)
    refuse(list(checked.problems.values()))
    if options.cfg:
        return hand_over([*flags, *settings])
    refuse(absent_paths(checked))
    configure_logging()
    if options.multirun:
        return sweep(argv, flags, settings, checked, sources)
    is_hydras = any(setting.lstrip("+~").startswith("hydra") for setting in settings)
    if own and not (is_hydras or options.package or options.experimental_rerun or options.resolve):
        # All that Hydra would do is to compose a config of medseg's own, which ``check`` has done, but for settings
        # that differ: one is given twice, or Hydra does not take it
        is_composed = sorted(settings) == sorted(checked.settings[0])
        config = checked.composed[0] if is_composed else compose(sources, sources.loader(), settings)
        return attempt(completed(config, sources, settings), argv, () if is_composed else None)[0]
    statuses: list[int] = []
    hand_over([*flags, *settings], lambda composed: statuses.append(attempt(plain(composed, sources), argv)[0]))
    return statuses[-1]


def refuse(problems: Sequence[str]) -> None:
    """Raise when there is anything wrong."""
    if problems:
        text = f"these {len(problems)} settings are wrong:\n{listing(problems)}"
        raise MedsegError(text if len(problems) > 1 else problems[0])


def hand_over(arguments: list[str], task: "Callable[[DictConfig], Any] | None" = None) -> int:
    """Let Hydra compose, and call the task with each config."""
    import hydra

    saved = sys.argv[:]
    sys.argv[1:] = arguments  # which is where Hydra looks
    try:
        with unchecked_help():
            hydra.main(config_path=str(CONF), version_base="1.3")(task or (lambda composed: None))()
    finally:
        sys.argv[:] = saved
    return 0


@contextmanager
def unchecked_help() -> Iterator[None]:
    """Let Hydra make its parser: Python 3.14 checks help texts at once, and one of Hydra 1.3's is no ``str``."""
    check = getattr(ArgumentParser, "_check_help", None)
    if check is None:
        yield
        return
    ArgumentParser._check_help = lambda parser, action: None  # type: ignore[attr-defined]
    try:
        yield
    finally:
        ArgumentParser._check_help = check  # type: ignore[attr-defined]


def plain(composed: "DictConfig", sources: Sources) -> dict[str, Any]:
    """Return what Hydra has composed as plain containers, unresolved: the job resolves it with its plan."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    config: dict[str, Any] = with_current_names(OmegaConf.to_container(composed, resolve=False))
    return completed(config, sources, list(HydraConfig.get().overrides.task))


def completed(config: dict[str, Any], sources: Sources, settings: list[str]) -> dict[str, Any]:
    """Return a composed config with what is known of its sources: the user's trust, and the keys that the user chose.

    What the user's own ``--config-dir`` names may be built from a checkpoint.
    """
    if sources.config_dir and "trust" in config:
        config["trust"] = [*config["trust"], *sorted(named_targets(sources.config_dir))]
    if isinstance(config.get("explicit_keys"), list):
        keys = explicit_keys(sources, config["command"], settings)
        config["explicit_keys"] = list(dict.fromkeys([*config["explicit_keys"], *keys]))
    return config


def attempt(config: dict[str, Any], argv: list[str], wrong: Sequence[str] | None = None) -> tuple[int, dict[str, Any]]:
    """Run a config's job; return its exit status and result, failed where it raised.

    ``wrong`` is what a check of the config has found; None: it has not been checked.
    """
    started = time.monotonic()
    try:
        refuse(check_values(config) if wrong is None else wrong)
        job = import_module(f"medseg.jobs.{JOBS[config['command']]}")
        quieten_libraries()
        begin_job()
        Limit.max_gb = resolve({"read": config.get("read") or {}})["read"].get("max_gb", DEFAULT_MAX_GB)
        with single_job(argv), enough_memory(f"for this {config['command']}", MORE_MEMORY):
            result = dict(job.run(config))
        return EXIT_STATUS[result["status"]], result
    except MedsegError as error:
        status, reason = complain(str(error)), str(error)
    except Exception as error:
        print_traceback()
        status, reason = BUG, f"{type(error).__name__}: {error}"
    return status, {"status": "failed", "reason": reason, "score": None, "seconds": time.monotonic() - started}


def sweep(argv: list[str], flags: list[str], settings: list[str], checked: Check, sources: Sources) -> int:
    """Run the jobs of a sweep one after the other into one folder, print them ranked, and return the exit status.

    A job that fails does not stop the others. In the folder of a sweep that was stopped, jobs that are done stay as
    they are, and a training that has a checkpoint goes on from there. An interrupted sweep shows what is done, and the
    line that goes on with it. Trainings share one split, which the seed does not draw anew.
    """
    from medseg.jobs import sweeps
    from medseg.system.terminal import Terminal

    first, is_split_given = checked.composed[0], any(setting.startswith("split.seed=") for setting in settings)
    run_dir = resolve({"run_dir": first.get("run_dir")})["run_dir"]
    names = [(config.get("dataset") or {}).get("name") or config["command"] for config in checked.composed]
    with sweeps.sweep_folder(run_dir, "+".join(dict.fromkeys(names)), [*flags, *settings]) as folder:
        if "seed" in checked.swept and not is_split_given and (first.get("split") or {}).get("seed", 0) is None:
            log.info("all jobs share the split of split.seed=%s, so that their scores compare", first["seed"])

        def task(composed: "DictConfig") -> float:
            from hydra.core.hydra_config import HydraConfig

            hydra = HydraConfig.get()
            config, run_dir = plain(composed, sources), folder / str(hydra.job.num)
            done = sweeps.result_of(run_dir)
            result = done or {"status": "failed", "reason": "interrupted"}  # which stays of a job that does not end
            try:
                if not done:
                    if "run_dir" in config:
                        config["run_dir"] = escape(str(run_dir))
                    if not is_split_given and (split := config.get("split") or {}).get("seed", 0) is None:
                        split["seed"] = first["seed"]  # null would be the job's own
                    if "resume" in config and (run_dir / "checkpoints" / "last.ckpt").is_file():
                        config["resume"] = config["run_dir"]
                    _, result = attempt(config, argv)
            finally:
                sweeps.record(run_dir, result, list(hydra.overrides.task))
                sweeps.write_record(folder)
            return float("nan") if result.get("score") is None else float(result["score"])

        where = [f"hydra.sweep.dir={quote(str(folder))}", "hydra.sweep.subdir=${hydra.job.num}"]
        try:
            hand_over([*flags, *settings, *where, *maximising(sources, settings)], task)
            if (first.get("sweep") or {}).get("test") == "best":
                trust = {name for config in checked.composed for name in (*config["trust"], *own_targets(config))}
                test_best(folder, sources, trust)
        except KeyboardInterrupt:
            Terminal().print(*sweeps.tables(sweeps.write_record(folder)))
            line = ["medseg", *(word for word in argv if not word.startswith("run_dir=")), f"run_dir={folder}"]
            print(printable(f"to go on: {shlex.join(line)}"))
            raise
        return report(folder)


def test_best(folder: Path, sources: Sources, trust: set[str]) -> None:
    """Test the best training of each ranking, as one that is resumed when nothing is left to train is tested."""
    from medseg.jobs import sweeps

    for best in (ranking.best for ranking in sweeps.rankings(sweeps.read(folder))):
        if best and best["test_score"] is None:
            run_dir = folder / str(best["job"])
            log.info("%s is the best by validation, and is tested", run_dir)
            own = ["--config-dir", str(sources.config_dir)] if sources.config_dir else []
            trusted = f"trust=[{','.join(map(quote, sorted(trust)))}]"
            try:
                answer(["train", f"resume={quote(str(run_dir))}", "sweep.test=all", trusted, *own])
            except MedsegError as error:
                complain(str(error))


def maximising(sources: Sources, settings: list[str]) -> list[str]:
    """Return what makes a sweeper that searches maximise the score, unless the settings say which way it is to go."""
    node = {"hydra": {"sweeper": sources.sweeper(settings)}}
    names = {setting.partition("=")[0].lstrip("+") for setting in settings}
    return [
        f"{key}={value}" for key, value in MAXIMISING.items() if key not in names and look_up(node, key.split("."))[0]
    ]


def report(folder: Path) -> int:
    """Print a sweep's ranked table, and where its files are; return its exit status: 0 all done, 1 none, 3 some."""
    from medseg.jobs import sweeps
    from medseg.system.terminal import Terminal

    ranked = sweeps.write_record(folder, has_ended=True)
    results = [job for ranking in ranked for job in ranking.jobs]
    Terminal().print(*sweeps.tables(ranked))
    if sum(ranking.best is not None for ranking in ranked) > 1:
        print("jobs of different tables were validated on different cases: their scores have no common order")
    for ranking in ranked:
        is_chosen = len(ranked) == 1 or sum(map(sweeps.counts, ranking.jobs)) > 1  # else it is best of itself alone
        if ranking.best and is_chosen:
            print(printable(f"best: job {ranking.best['job']}, checkpoint={folder / str(ranking.best['job'])}"))
    if sweeps.are_complete_folds(folder, results):
        print(printable(f"the folds are an ensemble: checkpoint={folder}"))
    print(printable(f"sweep folder: {folder}"))
    if len({item for result in results for item in result["overrides"] if item.startswith("split.labelled=")}) > 1:
        from medseg.jobs.evaluate.few_shot import learning_curve

        if learning_curve(folder):
            print(printable(f"learning curve: {folder / 'learning_curve.html'}"))
    if len([*folder.glob("*/cases.csv"), *folder.glob("*/test/cases.csv")]) > 1:
        print(printable(f"for significance tests: medseg compare runs={shlex.quote(str(folder))}"))
    if results and all(result["status"] == "done" for result in results):
        return 0
    return 3 if any(result["status"] != "failed" for result in results) else 1


def configure_logging() -> None:
    """Show medseg's log from INFO, libraries' from WARNING: above the display on a terminal, else on stderr."""
    from medseg.system.terminal import interactive_terminal

    if console := interactive_terminal():
        from rich.logging import RichHandler

        handler: logging.Handler = RichHandler(console=console, show_path=False, show_level=False)
        handler.setFormatter(PrintableFormatter("%(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(PrintableFormatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.captureWarnings(True)  # which may tell of names, too
    logging.getLogger("medseg").setLevel(logging.INFO)


def quieten_libraries() -> None:
    """Leave libraries' warnings alone; undo the levels and the second handlers that Lightning's import sets."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.WARNING)
        logger.handlers.clear()
    logging.getLogger("nibabel.global").setLevel(logging.ERROR)  # its remarks on headers; errors are raised anyway


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
