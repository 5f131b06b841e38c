"""Hydra's view of medseg's own search: ``hydra/sweeper=optuna``.

Hydra imports this module whenever it is used, so that Optuna is imported only when there is a search.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.medseg.launchers import ProcessLauncher


class OptunaSweeper(Sweeper):
    """Searches the space that a sweep's overrides span, with one of medseg's own launchers."""

    launcher: ProcessLauncher
    config: DictConfig

    def __init__(self, params: dict[str, str] | None) -> None:
        """``params`` are overrides by key, which those of the command line replace."""
        self.params = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take in what Hydra hands to sweepers."""
        self.context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(  # type: ignore[assignment]
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run the trials until all have ended, also those of other processes that work on the same search."""
        from medseg.config.check import look_up
        from medseg.config.schema import typed
        from medseg.config.settings import SearchSettings
        from medseg.sweeps.search import Search

        parser = OverridesParser.create(config_loader=self.context.config_loader)
        lines = [*(f"{key}={values}" for key, values in self.params.items()), *arguments]
        overrides = {each.get_key_element(): each for each in parser.parse_overrides(lines)}
        swept = {key: each for key, each in overrides.items() if each.is_sweep_override()}
        space = {key: distribution_of(each) for key, each in swept.items()}
        fixed = {key: each.get_value_element_as_str() for key, each in overrides.items() if key not in swept}

        config: Any = OmegaConf.to_container(self.config, resolve=False)
        choices, start = config["hydra"]["runtime"]["choices"], {}
        for key, override in swept.items():
            name = override.key_or_group
            value = choices[name] if name in choices else look_up(config, name.split("."))[1]
            if same := values_like(value, override, space[key]):
                start[key] = same[0]

        def job_of(number: int, drawn: Sequence[str]) -> Any:
            keys = {override.partition("=")[0] for override in drawn}  # a repeat has another seed
            common = [f"{key}={value}" for key, value in fixed.items() if key not in keys and not is_of_search(key)]
            return self.launcher.jobs({number: [*common, *drawn]})[0]

        settings = typed(SearchSettings, config["search"])
        search = Search(self.launcher.sweep.folder, space, start, settings, config["seed"], job_of)
        self.launcher.run(search)
        for trial in search.trials():  # those of other processes, one of which may be the best
            search.job(trial)


def is_of_search(key: str) -> bool:
    """Return whether a setting is of the search and not of its jobs."""
    return key.lstrip("+~").partition(".")[0] == "search"


def distribution_of(override: Override) -> Any:
    """Return what Optuna calls the values of a swept override; those of a list are texts of Hydra's grammar.

    Raises:
        MedsegError: there are none.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    from medseg.errors import MedsegError

    values: Any = override.value()
    try:
        if isinstance(values, IntervalSweep):
            is_whole = isinstance(values.start, int) and isinstance(values.end, int)
            kind = IntDistribution if is_whole else FloatDistribution
            return kind(values.start, values.end, log="log" in values.tags)
        if isinstance(values, RangeSweep):
            numbers = sorted(values.range())
            kind = IntDistribution if isinstance(numbers[0], int) else FloatDistribution
            return kind(numbers[0], numbers[-1], step=abs(values.step))
        return CategoricalDistribution([*override.sweep_string_iterator()])
    except (ValueError, IndexError) as error:
        raise MedsegError(f"{override.input_line}: {error}") from error


def values_like(value: Any, override: Override, distribution: Any) -> list[Any]:
    """Return the values of a distribution that are a config's value: one or none."""
    from medseg.cli.overrides import values_of

    if isinstance(override.value(), IntervalSweep | RangeSweep):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return [value] if is_number and distribution.low <= value <= distribution.high else []
    texts = zip(distribution.choices, values_of(override), strict=True)
    return [text for text, each in texts if each == value and type(each) is type(value)]


@dataclass
class OptunaConf:
    """``params`` are overrides by key, as of Hydra's basic sweeper, for files of ``conf/experiment``."""

    _target_: str = "hydra_plugins.medseg.sweepers.OptunaSweeper"
    params: dict[str, str] | None = None


ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=OptunaConf, provider="medseg")
