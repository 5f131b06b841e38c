"""What memory and time allow, with costs that the tests set."""

import logging

import pytest
import torch

from medseg.errors import MedsegError
from medseg.preprocessing.planning.resources import (
    COMPARISONS,
    WIDTHS,
    StepCost,
    fit_layout,
    fit_step,
    fit_width,
    within_memory,
)

CPU = torch.device("cpu")


class FakeProbe:
    """A gigabyte a voxel of the batch; a step takes as many milliseconds as the square of the width.

    To measure it takes ``each`` seconds. A step of the plan costs ``cost``.
    """

    def __init__(self, last=1.0, each=0.0, cost=None):
        self.last, self.each, self.cost = last, each, cost
        self.spent = 0.0

    def memory(self, plan):
        return round(plan["plan"]["batch_size"] * plan["plan"]["patch_size"][0] * 1e9)

    def seconds(self, plan):
        self.spent += self.each
        time = plan["model"].get("base_channels", 16) ** 2 / 1000
        return time * (self.last if plan.get("trainer", {}).get("channels_last") else 1)


def draft(share):
    return {"model": {"base_channels": 16}, "plan": {"patch_size": [max(1, round(10 * share))], "batch_size": 2}}


def test_a_plan_that_fits_stays_as_it_is():
    plan, share = within_memory(draft, FakeProbe(), 20e9, is_given=True)
    assert share == 1
    assert plan["plan"]["patch_size"] == [10]
    assert plan["measured"] == {"memory_gb": 20}


def test_a_plan_shrinks_until_it_fits():
    plan, share = within_memory(draft, FakeProbe(), 13e9, is_given=True)
    assert plan["plan"]["patch_size"] == [6]  # 10, 8, 6 of 20, 16, 12 GB
    assert share == pytest.approx(0.64)
    again, share = within_memory(draft, FakeProbe(), 13e9, is_given=True, share=0.5)
    assert (again["plan"]["patch_size"], share) == ([5], 0.5)


def test_a_memory_that_nothing_fits_into_is_named():
    with pytest.raises(MedsegError, match=r"trainer\.memory_gb=1.*patch of 1 and a batch of 2.*2 GB.*narrower"):
        within_memory(draft, FakeProbe(), 1e9, is_given=True)
    with pytest.raises(MedsegError, match=r"trainer\.memory_gb=0\.0001:.* 2 GB of memory, of 0\.0001\. Take"):
        within_memory(draft, FakeProbe(), 1e5, is_given=True)


def test_an_unknown_need_stops_nothing():
    probe = FakeProbe()
    probe.memory = lambda plan: None
    assert within_memory(draft, probe, 1e9, is_given=True)[0]["plan"]["patch_size"] == [10]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_widest_network_with_enough_steps_is_chosen(width):
    seconds = int(1.05 * width**2 * width**2 / 1000) + 1
    plan = fit_width(draft(1), FakeProbe(), seconds)
    assert plan["model"]["base_channels"] == width
    tried = WIDTHS[: WIDTHS.index(width) + 2]
    assert plan["measured"]["step_seconds"] == {str(tried_one): tried_one**2 / 1000 for tried_one in tried}


def test_a_width_that_the_memory_cannot_bear_is_not_chosen():
    class Wide(FakeProbe):
        def memory(self, plan):
            return plan["model"]["base_channels"] * 1e9

    plan = fit_width(draft(1), Wide(), 36_000, limit=20e9)
    assert plan["model"]["base_channels"] == 16
    assert plan["measured"]["memory_gb"] == 16


def test_a_width_that_cannot_be_computed_is_not_chosen():
    class Narrow(FakeProbe):
        def seconds(self, plan):
            return 0.001 if plan["model"]["base_channels"] < 24 else float("inf")

    plan = fit_width(draft(1), Narrow(), 36_000)
    assert plan["model"]["base_channels"] == 16
    assert plan["measured"]["step_seconds"] == {"8": 0.001, "16": 0.001}


def test_widths_are_estimated_where_measuring_took_its_time(caplog):
    probe = FakeProbe(each=COMPARISONS / 2)
    with caplog.at_level(logging.INFO, "medseg"):
        plan = fit_width(draft(1), probe, 36_000)
    assert plan["model"]["base_channels"] == 32
    assert plan["measured"]["step_seconds"] == {"8": 0.064, "16": 0.256, "24": 0.576, "32": 1.024}
    assert probe.spent == COMPARISONS  # two of four
    assert "widths from 24 on are estimated: measuring the others took 12 s" in caplog.text


def test_too_little_time_for_any_gets_the_narrowest(caplog):
    with caplog.at_level(logging.INFO, "medseg"):
        assert fit_width(draft(1), FakeProbe(), 1)["model"]["base_channels"] == WIDTHS[0]
    assert "base_channels=8: estimated steps within max_time per width: 8: " in caplog.text


@pytest.mark.parametrize(("max_time", "model"), [(None, {"base_channels": 16}), (600, {})])
def test_without_a_time_or_with_a_given_width_nothing_is_measured(max_time, model):
    plan = draft(1) | {"model": model}
    assert fit_width(plan, None, max_time) is plan


@pytest.mark.parametrize(("last", "chosen"), [(0.5, True), (0.97, False), (1.5, False)])
def test_channels_last_must_be_clearly_faster(last, chosen):
    plan = draft(1) | {"trainer": {"channels_last": False, "workers": 3}}
    plan["plan"]["slice_axis"] = None
    assert fit_layout(plan, FakeProbe(last), None)["trainer"] == {"channels_last": chosen, "workers": 3}


def test_layouts_are_not_compared_where_widths_took_all_the_time(caplog):
    plan, probe = draft(1) | {"trainer": {"channels_last": False}}, FakeProbe(0.5)
    plan["plan"]["slice_axis"] = None
    probe.spent = COMPARISONS
    with caplog.at_level(logging.INFO, "medseg"):
        assert fit_layout(plan, probe, None) is plan
    assert "channels stay first in memory: measuring widths took 12 s" in caplog.text


def tried(cost, *, limit=20e9, must_compile=False):
    probe = FakeProbe()
    probe.step = lambda plan: cost
    plan = draft(1) | {"trainer": {"compile": True, "workers": 3}, "measured": {"memory_gb": 20}}
    return fit_step(plan, probe, limit, must_compile=must_compile)


def test_what_a_step_took_is_in_the_plan():
    plan = tried(StepCost(0.12345, 15_000_000_000))
    assert plan["measured"] == {"memory_gb": 20, "step": 0.1235, "peak_gb": 15}
    assert plan["trainer"] == {"compile": True, "workers": 3}
    assert tried(StepCost(0.1))["measured"] == {"memory_gb": 20, "step": 0.1}


def test_what_cannot_be_compiled_is_not_unless_the_config_wants_it():
    cost = StepCost(0.1, failure="Failed to find C compiler.")
    assert tried(cost)["trainer"] == {"compile": False, "workers": 3}
    with pytest.raises(MedsegError, match=r"trainer\.compile=true: .*\(Failed to find C compiler\.\)\. Leave it out"):
        tried(cost, must_compile=True)


@pytest.mark.parametrize("cost", [StepCost(float("inf")), StepCost(0.1, 21_000_000_000)])
def test_a_step_that_memory_does_not_suffice_for_leaves_no_plan(cost):
    assert tried(cost) is None
