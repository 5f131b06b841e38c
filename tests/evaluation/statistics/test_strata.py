"""Strata: each value its own, many numbers by quarters, names refused; and their statistics against plain sums."""

import numpy as np
import pytest

from medseg.errors import MedsegError
from medseg.evaluation.metrics.registry import Settings
from medseg.evaluation.report.tables import tables_of
from medseg.evaluation.statistics.strata import check_values, strata_of
from medseg.evaluation.statistics.summary import summarise
from medseg.io.case import Case
from medseg.jobs.evaluate.scoring import check_strata


def by_case(*values: object) -> dict[str, str]:
    return {f"c{place}": str(value) for place, value in enumerate(values)}


def test_each_value_is_a_stratum_and_what_has_none_comes_first() -> None:
    found = strata_of(by_case("B", "A", "", "B"))
    assert list(found.items()) == [("", ["c2"]), ("A", ["c1"]), ("B", ["c0", "c3"])]


def test_few_numbers_are_in_their_order() -> None:
    assert list(strata_of(by_case(3, 10, 1.5, 3))) == ["1.5", "3", "10"]
    assert list(strata_of(by_case("3 T", "1.5 T", "10"))) == ["1.5 T", "10", "3 T"]


def test_many_numbers_are_divided_at_their_quartiles() -> None:
    ages = np.random.default_rng(0).permutation(np.arange(20, 84))
    found = strata_of(by_case(*ages, "", ""))
    assert list(found) == ["", "20–35", "36–51", "52–67", "68–83"]
    assert [len(cases) for cases in found.values()] == [2, 16, 16, 16, 16]
    for name, cases in list(found.items())[1:]:
        low, high = map(int, name.split("–"))
        assert all(low <= ages[int(case[1:])] <= high for case in cases)


def test_numbers_of_which_one_is_frequent() -> None:
    found = strata_of(by_case(*[0] * 60, *range(1, 21)))
    assert sum(map(len, found.values())) == 80
    assert list(found) == ["0", "1–20"]  # three quartiles are 0: what is above them is one range


@pytest.mark.parametrize("odd", ["nan", "inf", "unknown"])
def test_what_is_no_number_is_a_text(odd: str) -> None:
    assert list(strata_of(by_case("2", "10", odd))) == sorted(["2", "10", odd])


def test_names_are_refused_and_sites_are_not() -> None:
    check_values("site", by_case(*[f"site {i % 15}" for i in range(60)]))
    check_values("age", by_case(*range(60)))
    check_values("site", by_case("a", "b", "c"))  # few cases may each have their own
    with pytest.raises(MedsegError, match="name has 31 different texts for 60 cases"):
        check_values("name", by_case(*[f"n{min(i, 30)}" for i in range(60)]))
    cases = [Case(str(i), str(i), (), columns={"day": f"2020-01-{i:02}"}) for i in range(28)]
    with pytest.raises(MedsegError, match=r"metrics\.strata: day has 28"):
        check_strata(cases, ["day"])


def test_statistics_of_strata_are_those_of_their_rows() -> None:
    rng = np.random.default_rng(1)
    rows = [
        {
            "case": f"c{case}",
            "group": f"p{case}",
            "class": name,
            "dice": float(rng.uniform()),
            "hd95": float("nan") if case % 10 == 0 else float(rng.uniform(1, 9)),
            "truth_voxels": 9,
            "predicted_voxels": 0 if case % 10 == 0 else 9,
            "age": str(20 + case),
            "site": "AB"[case % 2],
        }
        for case in range(40)
        for name in ("core", "edema")
    ]
    summary = summarise(rows, ["core", "edema"], Settings(("dice", "hd95")), subset="test", strata=["age", "site"])
    assert list(summary["strata"]) == ["age", "site"]
    assert list(summary["strata"]["age"]) == ["20–29", "30–39", "40–49", "50–59"]
    for name, part in summary["strata"]["age"].items():
        low, high = map(int, name.split("–"))
        own = [row for row in rows if low <= int(row["age"]) <= high and row["class"] == "core"]
        found = part["classes"]["core"]
        assert part["n_cases"] == 10
        assert found["dice"]["mean"] == pytest.approx(np.mean([row["dice"] for row in own]))
        assert found["dice"]["ci95"] is not None
        assert (found["hd95"]["n"], found["hd95"]["n_undefined"], found["hd95"]["n_missed"]) == (9, 1, 1)
    sites = summary["strata"]["site"]
    assert [part["classes"]["core"]["hd95"]["n_missed"] for part in sites.values()] == [4, 0]
    titles = [table.title for table in tables_of(summary)]
    assert titles[-2:] == ["Dice by age", "Dice by site"]
    means = [part["mean"]["dice"] for part in sites.values()]
    over = summary["over_strata"]["site"]["dice"]
    assert (over["mean"], over["std"], over["n"]) == (pytest.approx(np.mean(means)), np.std(means, ddof=1), 2)
    *rows, last = tables_of(summary)[-1].rows
    assert (len(rows), last[-1]) == (2, f"{over['mean']:.3f} ± {over['std']:.3f}")
