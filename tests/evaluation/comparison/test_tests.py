"""Paired comparisons against exact enumeration, values by hand and scipy."""

from collections.abc import Sequence
from itertools import product
from math import inf, isinf, isnan, nan
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import bootstrap, rankdata, wilcoxon

from medseg.errors import MedsegError
from medseg.evaluation.comparison.pairing import Paired, pair
from medseg.evaluation.comparison.tests import (
    BETTER,
    NOT_SHOWN,
    TOO_FEW,
    UNCLEAR,
    WORSE,
    Comparison,
    compare_all,
    holm,
    patient_means,
    signed_rank,
    smallest_p,
)
from medseg.evaluation.report.files import Report

SETTINGS = {"nsd_mm": 1.0, "surface": "elements", "lesions": "overlap", "missed_mm": None}


def row(case: str, dice: float, name: str = "lesion", group: str = "", true: float = 9, found: int = 9, **more: object):
    """A row of a report."""
    sizes = {"truth_voxels": float(true), "predicted_voxels": float(found)}
    return {"case": case, "group": group or case, "class": name, "dice": dice, **more, **sizes}


def report(name: str, rows: Sequence[dict], **settings: object) -> Report:
    return Report(name, Path(name), rows, SETTINGS | settings)


def two(a: Sequence[float], b: Sequence[float], metric: str = "dice", **more: object) -> Paired:
    """Two runs with these values of a metric, a patient a case."""
    reports = [
        report(name, [row(f"c{i}", **{"dice": 0.5, metric: value, **more}) for i, value in enumerate(values)])
        for name, values in (("a", a), ("b", b))
    ]
    return pair(reports, [metric])


def only(paired: Paired) -> Comparison:
    (found,) = compare_all(paired)
    return found


def enumerated(differences: np.ndarray) -> float:
    """Pratt's test by all 2ⁿ signs: how often the rank sum lies as far from its mean."""
    ranks = np.where(differences == 0, 0, rankdata(abs(differences)))
    seen = abs((np.sign(differences) * ranks).sum())
    sums = [abs((np.array(signs) * ranks).sum()) for signs in product((-1, 1), repeat=len(ranks))]
    return float(np.mean([value >= seen - 1e-9 for value in sums]))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", ["plain", "ties", "zeros", "infinite"])
def test_signed_rank_test_against_enumeration(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(6, 11))
    differences = rng.normal(0.4, 1, n)
    if kind in ("ties", "zeros"):
        differences = np.round(differences * 2) / 2
    if kind == "zeros":
        differences[:3] = 0
    if kind == "infinite":
        differences[:2] = inf, -inf
    assert signed_rank(differences) == pytest.approx(enumerated(differences))


def test_signed_rank_test_of_many_is_that_of_scipy() -> None:
    differences = np.round(np.random.default_rng(0).normal(0.2, 1, 70), 1)
    assert signed_rank(differences) == pytest.approx(wilcoxon(differences, zero_method="pratt").pvalue)


def test_signed_rank_test_of_few_and_of_equal_ones() -> None:
    assert signed_rank(np.arange(1.0, 6)) is None
    assert signed_rank(np.arange(1.0, 7)) == pytest.approx(2 / 2**6)
    assert signed_rank(np.zeros(9)) == 1.0


def test_holm_by_hand() -> None:
    # 0.01·4, 0.02·3, 0.03·2 → raised to the one before, 0.04·1 → raised
    assert holm([0.03, 0.01, None, 0.04, 0.02]) == pytest.approx([0.06, 0.04, None, 0.06, 0.06])
    assert holm([0.4, 0.9]) == pytest.approx([0.8, 0.9])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_smallest_p_is_that_of_the_test() -> None:
    assert smallest_p(8, 1) == pytest.approx(signed_rank(np.arange(1.0, 9)))
    assert smallest_p(8, 1000) == 1.0


def test_patient_means_by_hand() -> None:
    values = np.array([[0.2, 0.4, 0.9, nan], [1.0, nan, nan, nan]])
    found = patient_means(values, ~np.isnan(values), np.array([0, 0, 1, 2]))
    np.testing.assert_allclose(found, [((0.2 + 0.4) / 2 + 1.0) / 2, 0.9, nan])


def test_a_comparison_by_hand_and_by_scipy() -> None:
    rng = np.random.default_rng(1)
    b = rng.uniform(0.5, 0.8, 20)
    a = b + rng.normal(0.05, 0.03, 20)
    found = only(two(a, b))
    assert (found.a, found.b, found.n_cases, found.n_patients) == ("a", "b", 20, 20)
    assert found.means == pytest.approx((a.mean(), b.mean()))
    assert found.difference == pytest.approx((a - b).mean())
    assert found.p == pytest.approx(wilcoxon(a - b).pvalue)
    assert found.p_holm == found.p
    expected = bootstrap((a - b,), np.mean, n_resamples=20_000, rng=np.random.default_rng(5)).confidence_interval
    assert found.interval == pytest.approx((expected.low, expected.high), abs=0.002)
    ranks = np.sign(a - b) * rankdata(abs(a - b))
    assert found.rank_biserial == pytest.approx(ranks.sum() / (20 * 21 / 2))
    assert found.verdict == BETTER


def test_both_directions_agree() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.uniform(0.7, 0.9, 12), rng.uniform(0.4, 0.6, 12)
    there, back = only(two(a, b)), only(two(b, a))
    assert (there.verdict, back.verdict) == (BETTER, WORSE)
    assert there.p == back.p
    assert there.difference == pytest.approx(-back.difference)
    assert there.interval == pytest.approx((-back.interval[1], -back.interval[0]), abs=0.01)


@pytest.mark.parametrize(("metric", "verdict"), [("dice", BETTER), ("hd95", WORSE), ("volume_difference", WORSE)])
def test_the_verdict_follows_what_is_wanted(metric: str, verdict: str) -> None:
    low, high = np.linspace(0.1, 0.2, 10), np.linspace(0.6, 0.9, 10)
    if metric == "volume_difference":
        high = high * np.where(np.arange(10) % 2, -1, 1)  # nearer to zero is better, whatever the sign
    assert only(two(high, low, metric)).verdict == verdict


def test_no_difference_is_never_called_equal() -> None:
    values = np.linspace(0.3, 0.9, 15)
    found = only(two(values, values))
    assert (found.p, found.difference, found.interval) == (1.0, 0.0, [0.0, 0.0])
    assert found.verdict == NOT_SHOWN


def test_ranks_and_means_that_disagree_give_no_verdict() -> None:
    differences = np.array([0.01 + 0.001 * i for i in range(20)] + [-0.9])
    found = only(two(0.9 + differences, np.full(21, 0.9)))
    assert found.p < 0.05
    assert found.difference < 0 < found.rank_biserial
    assert found.verdict == UNCLEAR


def test_below_six_patients_there_is_no_p() -> None:
    found = only(two([0.9] * 5, [0.1] * 5))
    assert (found.p, found.p_holm, found.interval, found.verdict) == (None, None, None, TOO_FEW)
    assert found.difference == pytest.approx(0.8)


def test_many_cases_of_one_patient_are_one() -> None:
    rows = [[row(f"c{i}", level, group="p") for i in range(40)] for level in (0.9, 0.1)]
    found = only(pair([report("a", rows[0]), report("b", rows[1])], ["dice"]))
    assert (found.n_cases, found.n_patients, found.p) == (40, 1, None)


def test_comparisons_made_and_adjusted_together() -> None:
    rng = np.random.default_rng(3)

    def made(name: str, level: float) -> Report:
        rows = [
            row(f"c{i}", level + rng.normal(0, 0.02), of, iou=level / 2 + rng.normal(0, 0.02))
            for i in range(12)
            for of in ("core", "edema")
        ]
        return report(name, rows)

    found = compare_all(pair([made("a", 0.7), made("b", 0.7), made("c", 0.6)], ["dice", "iou"]))
    assert len(found) == 3 * 3 * 2  # pairs, classes and their mean, metrics
    assert [one.p_holm for one in found] == holm([one.p for one in found])
    mean = next(one for one in found if (one.metric, one.name, one.b) == ("dice", None, "c"))
    parts = [one for one in found if (one.metric, one.a, one.b) == ("dice", mean.a, "c") and one.name]
    assert mean.difference == pytest.approx(np.mean([one.difference for one in parts]))


# what a case counts as


def test_both_empty_is_perfect_and_an_invented_finding_is_not() -> None:
    good = report("a", [row("x", nan, true=0, found=0, hd95=nan), row("y", 0.5, hd95=2.0)])
    bad = report("b", [row("x", 0.0, true=0, found=7, hd95=nan), row("y", 0.5, hd95=2.0)])
    paired = pair([good, bad], ["dice", "hd95"])
    assert paired.values["dice"].tolist() == [[[1.0, 0.5]], [[0.0, 0.5]]]
    assert paired.values["hd95"].tolist() == [[[0.0, 2.0]], [[inf, 2.0]]]


def test_shares_of_an_empty_truth_say_nothing() -> None:
    more = {"sensitivity": nan, "precision": nan, "relative_volume_difference": nan, "volume_difference": 0.0}
    paired = pair([report(name, [row("x", nan, true=0, found=0, **more)]) for name in "ab"], ["dice", *more])
    found = {name: values[0, 0, 0] for name, values in paired.values.items()}
    assert isnan(found["sensitivity"])
    assert isnan(found["relative_volume_difference"])
    assert (found["precision"], found["volume_difference"], found["dice"]) == (1.0, 0.0, 1.0)


def test_specks_that_are_no_lesions_are_nothing() -> None:
    """BraTS's rule leaves small components out: masks that are not empty may hold no lesion."""
    more = {
        "lesion_dice": nan,
        "lesion_f1": nan,
        "lesion_hd95": nan,
        "lesion_sensitivity": nan,
        "lesion_precision": nan,
    }
    found = {
        "lesion_dice": 0.0,
        "lesion_f1": 0.0,
        "lesion_hd95": nan,
        "lesion_sensitivity": 0.0,
        "lesion_precision": nan,
    }
    rows = [row("x", 0.0, true=3, found=0, **more), row("y", 0.0, true=900, found=0, **found)]
    paired = pair([report(name, rows) for name in "ab"], list(more))
    of_a = {name: values[0, 0].tolist() for name, values in paired.values.items()}
    assert of_a["lesion_dice"] == of_a["lesion_f1"] == [1.0, 0.0]
    assert of_a["lesion_hd95"] == [0.0, inf]
    np.testing.assert_equal(of_a["lesion_sensitivity"], [nan, 0.0])
    np.testing.assert_equal(of_a["lesion_precision"], [1.0, nan])


def test_a_class_that_a_run_never_predicts_is_named() -> None:
    rows = {name: [row(case, 0.5, found=found) for case in "xyz"] for name, found in (("good", 9), ("bad", 0))}
    paired = pair([report(name, its) for name, its in rows.items()], ["dice"])
    assert paired.notes == (f"bad: {rows['bad'][0]['class']}: never predicted (cases with it: 3)",)


def test_missed_distances_are_the_worst_ranks_and_in_no_mean() -> None:
    a = [*np.linspace(1.0, 1.8, 9), nan, nan]
    b = [*np.linspace(2.0, 2.8, 9), nan, 3.0]
    paired = pair(
        [
            report("a", [row(f"c{i}", 0.5, hd95=v, found=0 if isnan(v) else 9) for i, v in enumerate(a)]),
            report("b", [row(f"c{i}", 0.5, hd95=v, found=0 if isnan(v) else 9) for i, v in enumerate(b)]),
        ],
        ["hd95"],
    )
    found = only(paired)
    assert found.missed == (2, 1)
    assert found.means == pytest.approx((1.4, 2.4))
    assert (found.difference, found.n_patients) == (pytest.approx(-1.0), 11)
    assert found.p == pytest.approx(enumerated(np.array([-1.0] * 9 + [0.0, 1e9])))


def test_all_distances_missed_by_one_run() -> None:
    paired = pair(
        [
            report("a", [row(f"c{i}", 0.0, hd95=nan, found=0) for i in range(8)]),
            report("b", [row(f"c{i}", 0.5, hd95=2.0) for i in range(8)]),
        ],
        ["hd95"],
    )
    found = only(paired)
    assert (found.means, found.difference, found.interval) == (None, None, None)
    assert (found.verdict, found.missed) == (WORSE, (8, 0))


def test_unknown_truth_is_left_out() -> None:
    paired = pair([report(name, [row("x", nan, true=nan), row("y", 0.5)]) for name in "ab"], ["dice"])
    found = only(paired)
    assert (found.n_cases, found.n_patients) == (1, 1)
    assert not any(isinf(value) for value in paired.values["dice"].ravel())


# which reports go together


def test_what_is_not_in_all_runs_is_left_out_and_said() -> None:
    a = report("a", [row(case, 0.5, name, iou=0.3) for case in "xyz" for name in ("core", "edema")])
    b = report("b", [row(case, 0.5, "core") for case in "yzw"])
    paired = pair([a, b], ["dice", "iou", "nsd"])
    assert (paired.cases, paired.classes, list(paired.values)) == (("y", "z"), ("core",), ["dice"])
    assert paired.notes == (
        "not in all runs, so left out: 2 cases (x, w)",
        "not in all runs, so left out: 1 class (edema)",
        "not in all reports, so left out: iou",
    )


def test_nothing_in_common_is_refused() -> None:
    with pytest.raises(MedsegError, match="no case in common"):
        pair([report("a", [row("x", 0.5)]), report("b", [row("y", 0.5)])], ["dice"])
    with pytest.raises(MedsegError, match="no class in common"):
        pair([report("a", [row("x", 0.5, "core")]), report("b", [row("x", 0.5, "edema")])], ["dice"])


@pytest.mark.parametrize("other", [8, nan])
def test_another_truth_is_refused(other: float) -> None:
    with pytest.raises(MedsegError, match=r"1 case\(s\) have another ground truth.*\n  - x, lesion: 9 in a, "):
        pair([report("a", [row("x", 0.5), row("y", 0.5)]), report("b", [row("x", 0.5, true=other), row("y", 0.5)])], [])


def test_metrics_measured_otherwise_are_left_out() -> None:
    rows = [row("x", 0.5, nsd=0.5, hd95=1.0, lesion_f1=0.5)]
    reports = [report("a", rows), report("b", rows, nsd_mm=2.0, lesions="brats")]
    paired = pair(reports, ["dice", "nsd", "hd95"])
    assert list(paired.values) == ["dice", "hd95"]
    assert paired.notes == ("measured with another metrics.nsd_mm, so left out: nsd",)


def test_the_coarsest_grouping_counts() -> None:
    fine = report("a", [row(f"c{i}", 0.5) for i in range(6)])
    coarse = report("b", [row(f"c{i}", 0.5, group=f"p{i // 2}") for i in range(6)])
    paired = pair([fine, coarse], ["dice"])
    assert paired.patients.tolist() == [0, 0, 1, 1, 2, 2]
    assert paired.n_patients == 3
    assert "patient in different ways" in paired.notes[0]
