"""What ``resume=`` means: going on with a run, with a sweep, or with whatever is there."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg.cli.arguments import parse_flags, split, value_of
from medseg.cli.job import refuse
from medseg.cli.overrides import check, is_plain, is_synthetic
from medseg.cli.quoting import quote
from medseg.cli.sources import RESUMED, Sources
from medseg.config.check import dotted, lies_below, look_up, resolve
from medseg.config.instantiate import named_targets
from medseg.config.schema import CONF
from medseg.config.untrusted import LAUNCHING, RUN_NODES, SWEEP, config_of_run, read_json_object
from medseg.errors import MedsegError, listing
from medseg.system.printable import printable
from medseg.system.relaunch import QUIET

RESUMABLE = ("train", "pretrain")
AUTO = "auto"

FIXED = {"explicit_keys", "seed", "dataset", "split", "preprocessing", "plan", "model", "first_stage"} | {
    "trainer.head_factor"  # by which the optimizer's parameters are in groups
}
MOVABLE = ("dataset.root", "dataset.group_file", "dataset.annotated_file", "dataset.corrections")
"""What a resumed run keeps, and what of it may have moved."""


def resumed(
    command: str | None, settings: list[str], flags: list[str], options: Namespace
) -> tuple[list[str] | None, list[str], Path | None]:
    """Return the settings and flags that a command line with ``resume`` stands for, and the folder of a sweep's.

    No settings where nothing is left to do. A line without ``resume`` stands for itself.

    Raises:
        MedsegError: there is nothing to go on with, or it cannot go on so.
    """
    value = value_of("resume", settings)
    if not value:
        return settings, flags, None
    if value == AUTO:
        where = value_of("run_dir", settings)
        if not where:
            raise MedsegError("resume=auto goes on with what is in run_dir, or begins it there: give run_dir=DIR.")
        if options.multirun:  # a sweep goes on in its folder in any case
            return [setting for setting in settings if not setting.startswith("resume=")], flags, None
        settings = begun_or_resumed(str(command), settings, options) if command in RESUMABLE else settings
    elif (Path(folder := resolve({"resume": value})["resume"]) / SWEEP).is_file():
        return *resumed_sweep(Path(folder), settings, flags, options), Path(folder)
    if not settings or command not in RESUMABLE:
        return settings or None, flags, None
    return *resumed_run(settings, flags, options), None


def resumed_sweep(
    folder: Path, settings: list[str], flags: list[str], options: Namespace
) -> tuple[list[str], list[str]]:
    """For ``resume=SWEEP`` take the settings and flags that the sweep was started with, as far as a file may have them.

    What it may not have the line gives again. Where the jobs run may change.

    Raises:
        MedsegError: the sweep's record is damaged, or has what is to be given again, or the line asks for other jobs.
    """
    begun = read_json_object(folder / SWEEP).get("settings")
    if not isinstance(begun, list) or not all(isinstance(text, str) for text in begun):
        raise MedsegError(f"resume={folder}: its {SWEEP} does not say what the sweep was started with.")
    _, begun_flags, begun_settings = split(begun)
    begun_options = parse_flags(begun_flags)
    if begun_options.config_name != options.config_name:
        raise MedsegError(f"resume={folder}: it is a sweep of medseg {begun_options.config_name}.")
    own = [text for text in settings if not text.startswith("resume=")]
    if others := [text for text in own if text not in begun_settings and not text.startswith(("trust=", *LAUNCHING))]:
        raise MedsegError(
            f"resume={folder}: a sweep keeps the settings that it was started with; leave out {', '.join(others)}."
        )
    given = {text.partition("=")[0] for text in own} | {"run_dir"}
    if "hydra/launcher" in given:
        begun_settings = [text for text in begun_settings if not text.startswith(LAUNCHING)]
    # In their order, in which the jobs are numbered
    kept = [text for text in begun_settings if text in own or text.partition("=")[0] not in given]
    again = [text for text in kept if not (text in own or is_plain(text))]
    again += ["--config-dir"] if begun_options.config_dir and not options.config_dir else []
    if again:
        raise MedsegError(
            f"resume={folder}: it was started with what is not taken from a file, since it may run code or write "
            f"anywhere: give these again, or the sweep's own line with run_dir={folder}.\n{listing(again)}"
        )
    options.multirun = True
    return [*kept, *(text for text in own if text not in kept), f"run_dir={quote(str(folder))}"], [*flags, "-m"]


def made_elsewhere(config: dict[str, Any]) -> dict[str, str]:
    """Return where outside the working directory a sweep's settings have its synthetic data set made, by key.

    Where it is there already nothing is written.
    """
    from medseg.io.layouts import phantom_is_there

    if not is_synthetic(config):
        return {}
    layout = resolve(config)["dataset"]["layout"]
    inside = Path(layout["root"]).resolve().is_relative_to(Path.cwd().resolve())
    if inside or phantom_is_there(layout):
        return {}
    return {"dataset.root": f"{layout['root']!r} lies elsewhere, and the synthetic data set is not there"}


def begun_or_resumed(command: str, settings: list[str], options: Namespace) -> list[str]:
    """For ``resume=auto`` return the settings that begin a run in ``run_dir``, or that go on with the one there.

    A run goes on with what of the line differs from its config. None are returned, with a word about it, of a run that
    has come to its end and has a test, where nothing differs.

    Raises:
        MedsegError: the settings are wrong.
    """
    from medseg.jobs.rundir import found_in, read_result

    folder = Path(resolve({"run_dir": value_of("run_dir", settings)})["run_dir"])
    given = [setting for setting in settings if not setting.startswith(("resume=", "run_dir="))]
    if (found := found_in(folder, command)) not in ("resumable", "ended"):
        return [*given, f"run_dir={quote(str(folder))}"]
    sources = Sources.of(options)
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


def resumed_run(settings: list[str], flags: list[str], options: Namespace) -> tuple[list[str], list[str]]:
    """For ``resume=RUN`` take RUN's saved config in place of medseg's own, to be written into RUN again.

    Hydra never reads the file, in which a ``hydra`` node or a list of defaults would act: it gets what was checked.

    Raises:
        MedsegError: RUN has no config that can be taken, or the line asks for what a resumed run cannot do.
    """
    from hydra.core.config_store import ConfigStore

    value = value_of("resume", settings)
    if not value:  # resume=auto, where nothing is to be resumed
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
