"""Jobs that are killed and started again end like undisturbed ones, and leave no file half-written under its name.

Each is killed at a moment that counts files or steps, not time (see ``processes.Kill``).
"""

import json
import shutil

import pytest
import torch
from processes import Kill, check_whole, names_in, run, said
from small_jobs import CLEAN, EVAL, PREDICT, RESUME, SWEEP, TRAIN, TUNE, again, check_same


def kill(command, place, point):
    assert run(command, place, point) == -9, f"{point} was not reached:\n{said(place)}"
    check_whole(place)


QUICK = ("half *last.ckpt 2", "half *.case.pt 2", "before *case_003.nii.gz 1", "half *metrics.json 1", "step * 6")


def points(*kills):
    """Return kill points as parameters; only the quick ones are part of every test run."""
    return [pytest.param(each, id=str(each), marks=[] if str(each) in QUICK else [pytest.mark.trust]) for each in kills]


@pytest.mark.parametrize(
    "point",
    points(
        Kill("half", "*.fingerprint.pt", 3),
        Kill("half", "*/config.yaml"),
        Kill("after", "*/config.yaml"),
        Kill("before", "*/plan.json"),
        Kill("half", "*/splits.json"),
        Kill("half", "*/training_data.json"),
        Kill("half", "*.case.pt", 2),
        Kill("after", "*.case.pt", 3),
        Kill("step", count=1),
        Kill("half", "*/next_best.ckpt", interval=60),
        Kill("after", "*/next_best.ckpt", interval=60),
        Kill("after", "*/metrics.csv", interval=60),
        Kill("before", "*/last.ckpt"),
    ),
)
def test_a_training_without_a_checkpoint_is_begun_anew(data_alone, finished, tmp_path, point):
    place = tmp_path / "place"
    shutil.copytree(data_alone, place)
    kill(TRAIN, place, point)
    again(TRAIN, place)
    check_same(place, finished)


@pytest.mark.parametrize(
    "point",
    points(
        Kill("after", "*/last.ckpt"),
        Kill("after", "*/next_best.ckpt"),
        Kill("step", count=4),
        Kill("step", count=6),
        Kill("before", "*/metrics.csv", 2),
        Kill("after", "*/metrics.csv", 2),
        Kill("half", "*/last.ckpt", 2),
        Kill("after", "*/last.ckpt", 3),
        Kill("half", "*/result.json"),
        Kill("half", "*/overlays/*.png", 2),
        Kill("half", "*/test/metrics.json"),
        Kill("after", "*/test/cases.csv"),
        Kill("before", "*/test/report.html"),
        Kill("half", "*/result.json", 2),
    ),
)
def test_a_training_with_a_checkpoint_is_resumed(finished, tmp_path, point):
    place = tmp_path / "place"
    shutil.copytree(finished, place)
    shutil.rmtree(place / "run")
    kill(TRAIN, place, point)
    again(RESUME, place)
    check_same(place / "run", finished / "run")
    with pytest.raises(AssertionError):  # of another length
        check_same(place / "run", finished / "outputs")


@pytest.mark.parametrize("point", [Kill("after", "*best.ckpt", 2), Kill("after", "*/last.ckpt", 2)], ids=str)
def test_the_best_weights_are_those_that_the_result_names_with_whatever_settings_a_run_goes_on(
    finished, tmp_path, point
):
    place = tmp_path / "place"
    shutil.copytree(finished, place)
    shutil.rmtree(place / "run")
    kill((*TRAIN, "seed=2", "optimizer.lr=0.02"), place, point)  # with which each epoch is better
    again((*RESUME, "optimizer.lr=0.5", "trainer.validation_interval=3"), place)
    best = torch.load(place / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    selection = json.loads((place / "run" / "result.json").read_text("utf-8"))["selection"]
    assert best["epoch"] + 1 == selection["best"]["epoch"]
    assert names_in(place / "run" / "checkpoints") == ["best.ckpt", "last.ckpt"]


@pytest.mark.parametrize(
    "point",
    points(
        Kill("half", "*case_003.nii.gz", 1),
        Kill("before", "*case_003.nii.gz", 1),
        Kill("after", "*case_003.nii.gz", 1),
        Kill("half", "*.medseg/*.json", 3),
        Kill("half", "*predictions.csv", 1),
        Kill("before", "*predictions.csv", 2),
        Kill("half", "*overlays/*.png", 5),
        Kill("half", "*/contact_sheet.html"),
        Kill("half", "*uncertainty.csv"),
    ),
)
def test_a_prediction_goes_on(finished, undisturbed, tmp_path, point):
    place = tmp_path / "place"
    shutil.copytree(finished, place)
    kill(PREDICT, place, point)
    again(PREDICT, place)
    check_same(place / "masks", undisturbed(PREDICT, "masks"))


@pytest.mark.parametrize(
    "point",
    points(
        Kill("half", "*/config.yaml"),
        Kill("after", "*/config.yaml"),
        Kill("half", "*/overlays/*.png", 2),
        Kill("half", "*/metrics.json"),
        Kill("before", "*/report.html"),
        Kill("half", "*/result.json"),
    ),
)
def test_an_evaluation_is_repeated(finished, undisturbed, tmp_path, point):
    place = tmp_path / "place"
    shutil.copytree(finished, place)
    kill(EVAL, place, point)
    again(EVAL, place)
    check_same(place / "evaluation", undisturbed(EVAL, "evaluation"))


@pytest.mark.parametrize(
    "point",
    points(
        Kill("trial"),
        Kill("half", "*.npz", 4),
        Kill("half", "*/tuning.json"),
        Kill("half", "*/best.ckpt"),
        Kill("after", "*/best.ckpt"),
        Kill("half", "*/result.json"),
    ),
)
def test_a_tuning_is_repeated(finished, undisturbed, tmp_path, point):
    place = tmp_path / "place"
    shutil.copytree(finished, place)
    kill(TUNE, place, point)
    again(TUNE, place)
    check_same(place / "tuning", undisturbed(TUNE, "tuning"))
    check_same(place / "run", undisturbed(TUNE, "run"))


@pytest.mark.trust
@pytest.mark.parametrize(
    "point",
    [
        Kill("step", count=1),
        Kill("step", count=3),
        Kill("half", "*/sweep.json"),
        Kill("half", "*/0/result.json"),
        Kill("after", "*/0/result.json", 2),
        Kill("half", "*/sweep.csv"),
        Kill("half", "*/1/config.yaml"),
        Kill("half", "*/1/checkpoints/last.ckpt", 2),
        Kill("half", "*/test/metrics.json"),
        Kill("before", "*/sweep.html"),
    ],
    ids=str,
)
def test_a_sweep_goes_on(finished, undisturbed, tmp_path, point):
    place = tmp_path / "place"
    shutil.copytree(finished, place)
    kill(SWEEP, place, point)
    again(SWEEP, place)
    check_same(place / "sweep", undisturbed(SWEEP, "sweep"))


@pytest.mark.trust
@pytest.mark.parametrize("point", [Kill("remove", "*.pt", 1), Kill("remove", "*.case.pt", 3)], ids=str)
def test_a_cleaning_of_the_cache_is_repeated(finished, tmp_path, point):
    place = tmp_path / "place"
    shutil.copytree(finished, place)
    kill(CLEAN, place, point)
    assert list(place.rglob("*.pt"))
    again(CLEAN, place)
    assert names_in(place / "outputs/cache") == []
