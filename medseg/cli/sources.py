"""Where the configs of a command line are looked for, and what is composed of them."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.cli.quoting import BY_NAME
from medseg.config.check import escape, is_interpolation, look_up
from medseg.config.instantiate import with_current_names
from medseg.config.schema import CONF
from medseg.config.settings import KEYS
from medseg.config.untrusted import parse_yaml
from medseg.errors import MedsegError

if TYPE_CHECKING:
    from argparse import Namespace

    from hydra._internal.config_loader_impl import ConfigLoaderImpl

RESUMED = "medseg_run_to_resume"
"""The name under which Hydra finds the checked config of a resumed run."""


@dataclass(frozen=True)
class Sources:
    """Where the configs of one command line are looked for."""

    config_path: Path
    config_name: str
    config_dir: Path | None = None

    @classmethod
    def of(cls, options: "Namespace") -> "Sources":
        """Return the sources that Hydra's flags name."""
        config_dir = Path(options.config_dir) if options.config_dir else None
        return cls(Path(options.config_path or CONF), options.config_name, config_dir)

    @cached_property
    def groups(self) -> set[str]:
        """The names of the groups that have options."""
        from hydra.core.object_type import ObjectType

        files = self.loader().repository  # which the loader would copy for every question
        names = files.get_group_options("", ObjectType.GROUP)
        return {name for name in names if files.get_group_options(name)} - {"hydra"}

    @cached_property
    def packages(self) -> "Callable[..., dict[str, str | None]]":
        """``packages(name, *choices)``: the files that compose a config, and the package of each."""
        from hydra.types import RunMode

        @cache
        def packages(name: str, *choices: str) -> "dict[str, str | None]":
            files = self.loader().compute_defaults_list(name, list(choices), RunMode.RUN).defaults
            return {each.config_path: each.package for each in files if each.config_path}

        return packages

    @cached_property
    def skeleton(self) -> Callable[..., dict[str, Any]]:
        """``skeleton(*choices)``: the config of choices of groups alone, to be read only."""
        return cache(lambda *choices: compose(self, self.loader(), list(choices)))

    def of_multirun(self, settings: list[str]) -> dict[str, Any]:
        """Return Hydra's part of the config of a multirun with these settings: ``sweeper`` and ``launcher``."""
        from hydra.types import RunMode
        from omegaconf import OmegaConf

        config = self.loader().load_configuration(self.config_name, settings, RunMode.MULTIRUN)
        node: Any = OmegaConf.to_container(config.hydra, resolve=False)
        return dict(node)

    def loader(self) -> "ConfigLoaderImpl":
        """Return Hydra's loader for these folders, in Hydra's own order of search."""
        from hydra._internal.config_loader_impl import ConfigLoaderImpl
        from hydra._internal.utils import create_config_search_path
        from hydra.core.config_search_path import SearchPathQuery
        from hydra.core.plugins import Plugins

        Plugins.instance()
        path = create_config_search_path(str(self.config_path))
        if self.config_dir:
            path.prepend("command-line", f"file://{self.config_dir.resolve()}", SearchPathQuery(provider="schema"))
        return ConfigLoaderImpl(path)


@cache
def own_sources(command: str) -> Sources:
    """Return the sources of a command without files of the user, whose parts are composed once in a process."""
    return Sources(CONF, command)


def compose(sources: Sources, loader: "ConfigLoaderImpl", settings: list[str]) -> dict[str, Any]:
    """Compose a config and return it unresolved, as plain containers without Hydra's own part."""
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        config = loader.load_configuration(sources.config_name, settings, RunMode.RUN)
    except (HydraException, OmegaConfBaseException) as error:
        reason = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
        raise MedsegError(str(reason).strip()) from error
    plain: dict[str, Any] = with_current_names(OmegaConf.to_container(config, resolve=False))
    return with_mappings({name: value for name, value in plain.items() if name != "hydra"})


def with_mappings(config: dict[str, Any]) -> dict[str, Any]:
    """Return a composed config in which mappings that were written as text in quotes are mappings.

    Hydra's grammar has names in ASCII alone; the text is YAML, and a class may have any name.
    """
    for path in (path for path, key in KEYS.items() if key.kind in BY_NAME):
        *parents, name = path.split(".")
        text = look_up(config, [*parents, name])[1]
        if isinstance(text, str) and not is_interpolation(text):
            with suppress(MedsegError):
                value = parse_yaml(text, path)
                look_up(config, parents)[1][name] = escape(value) if isinstance(value, dict) else text
    return config
