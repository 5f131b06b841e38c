"""The learning curve: means by hand, and its interval against a bootstrap written out."""

import numpy as np
import pytest
from scipy.stats import bootstrap

from medseg.evaluation.comparison.learning_curve import Trained, points_of, table


def run(arm: str, labelled: int, seed: int, patients: int = 12, classes: tuple[str, ...] = ("a", "b")) -> Trained:
    rng = np.random.default_rng([labelled, seed, len(arm)])
    rows = [
        {"case": f"{p}-{i}", "group": f"p{p}", "class": name, "dice": float(rng.beta(5, 2))}
        for p in range(patients)
        for i in range(1 + p % 2)
        for name in classes
    ]
    rows[0]["dice"] = float("nan")
    means = [np.nanmean([row["dice"] for row in rows if row["class"] == name]) for name in classes]
    return Trained(arm, labelled, seed, float(np.mean(means)), rows)


RUNS = [run(arm, labelled, seed) for arm in ("scratch", "tuned") for labelled in (10, 5) for seed in (1, 0)]


def test_a_point_for_each_arm_and_number_in_order():
    points = points_of(RUNS)
    assert [(point.arm, point.labelled) for point in points] == [
        ("scratch", 5),
        ("scratch", 10),
        ("tuned", 5),
        ("tuned", 10),
    ]
    for point in points:
        own = {r.seed: r.score for r in RUNS if (r.arm, r.labelled) == (point.arm, point.labelled)}
        assert point.seeds == own
        assert point.mean == pytest.approx(sum(own.values()) / 2)
        assert point.ci95[0] < point.mean < point.ci95[1]


def test_the_interval_is_of_the_mean_over_seeds_over_patients():
    point = points_of(RUNS)[0]
    own = [r for r in RUNS if (r.arm, r.labelled) == (point.arm, point.labelled)]

    def mean_of(drawn):
        scores = []
        for trained in own:
            for name in ("a", "b"):
                by_patient = {f"p{p}": [] for p in range(12)}
                for row in trained.rows:
                    if row["class"] == name and row["dice"] == row["dice"]:
                        by_patient[row["group"]].append(row["dice"])
                scores.append(np.mean([value for p in drawn for value in by_patient[f"p{int(p)}"]]))
        return np.mean(scores)

    assert mean_of(range(12)) == pytest.approx(point.mean)
    expected = bootstrap(
        (np.arange(12),), mean_of, vectorized=False, n_resamples=2000, rng=np.random.default_rng(8)
    ).confidence_interval
    assert point.ci95 == pytest.approx([expected.low, expected.high], abs=0.012)


def test_no_interval_for_few_patients_or_different_ones():
    assert points_of([run("x", 5, 0, patients=7)])[0].ci95 is None
    assert points_of([run("x", 5, 0), run("x", 5, 1, patients=11)])[0].ci95 is None


def test_the_table_has_a_row_a_point():
    points = points_of([*RUNS, run("few", 20, 0, patients=7)])
    shown = table(points)
    assert [row[:2] for row in shown.rows] == [[point.arm, str(point.labelled)] for point in points]
    low, high = points[0].ci95
    seeds = ", ".join(f"{points[0].seeds[seed]:.3f}" for seed in (0, 1))
    assert shown.rows[0][2:] == [f"{points[0].mean:.3f}", f"{low:.3f}–{high:.3f}", seeds]
    assert shown.rows[-1][3] == "–"
