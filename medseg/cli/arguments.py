"""The words of a command line: a command, flags of Hydra's, and settings."""

from argparse import ArgumentError, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg.cli.hydra_main import unchecked_help
from medseg.cli.job import JOBS
from medseg.cli.overrides import syntax_problem
from medseg.errors import MedsegError, nearest

WITH_VALUE = ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp", "--package", "-p", "--cfg", "-c")
"""Hydra's flags that are followed by a value."""


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


def value_of(key: str, settings: Sequence[str]) -> Any:
    """Return the value that a command line sets a key to, None where it does not set it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    setting = next((setting for setting in reversed(settings) if setting.startswith(f"{key}=")), None)
    if setting is None:
        return None
    try:
        return OverridesParser.create().parse_override(setting).value()
    except (HydraException, ValueError) as error:  # the latter of a number of too many digits
        raise MedsegError(syntax_problem(setting)) from error
