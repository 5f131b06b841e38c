"""In which order jobs stand, and what is said of scores over seeds, splits and folds."""

import pytest

from medseg.sweeps.rankings import Ranking, rankings


def ranking_of(*jobs: tuple[str, str, int]) -> Ranking:
    """Return the only ranking of jobs: of the overrides, the validation cases, and the number of these of each."""
    results = []
    for job, (overrides, cases, n_cases) in enumerate(jobs):
        validated = {"dataset": "x", "metric": "dice", "n_cases": n_cases, "cases": cases}
        own = {"job": job, "score": 0.5 + job / 10, "overrides": overrides.split(), "validated": validated}
        results.append({**own, "status": "done"})
    [ranking] = rankings(results)
    return ranking


@pytest.mark.parametrize(
    ("jobs", "title", "spread"),
    [
        ([("seed=0", "a", 2), ("seed=1", "a", 2)], "2 validation cases", "2 seeds"),
        ([("split.fold=0", "a", 2), ("split.fold=1", "b", 3)], "2 folds, 5 validation cases", "2 folds"),
        # split.seed=null: their cases may overlap, so that a sum of them is a number of nothing
        ([("seed=0", "a", 2), ("seed=1", "b", 2)], "2 splits, each of 2 validation cases", "2 splits"),
        ([("seed=0", "a", 2), ("seed=1", "b", 3)], "2 splits, each of 2 to 3 validation cases", "2 splits"),
        (
            [(f"split.fold={fold} seed={seed}", "ab"[fold], 2) for seed in (0, 1) for fold in (0, 1)],
            "2 folds, 4 validation cases",
            "4 jobs of 2 folds",
        ),
        (
            [(f"split.fold={fold} seed={seed}", f"{fold} {seed}", 2) for seed in (0, 1) for fold in (0, 1)],
            "4 splits, each of 2 validation cases",
            "4 jobs of 2 folds",
        ),
    ],
)
def test_seeds_splits_and_folds_are_told_apart(jobs: list[tuple[str, str, int]], title: str, spread: str) -> None:
    ranking = ranking_of(*jobs)
    assert ranking.title == f"mean Dice over {title} of x; higher is better"
    assert ranking.settings[0].spread == f"{spread}, 0.5000 to {0.4 + len(jobs) / 10:.4f}"
