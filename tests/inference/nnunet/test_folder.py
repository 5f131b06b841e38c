"""Trained models of nnU-Net as medseg's: found, read, refused, and their masks against the network run by hand."""

import json
from itertools import combinations

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import label

from medseg import Predictor
from medseg.cli.command_line import main
from medseg.errors import MedsegError
from medseg.inference.loading import read_models
from medseg.inference.nnunet.folder import is_nnunet, read_nnunet

NAME = "nnUNetTrainer__nnUNetPlans__3d_fullres"
PATCH = (8, 8, 8)
REGIONS = {"background": 0, "whole": [1, 2], "core": 2}


def small(nnunet, folds=1, outputs=3, dims=3, background=0.0, **plan):
    """The plans and networks of a small model; ``background`` is added to that class's logits."""
    architecture = nnunet.architecture(dims)
    plans = nnunet.plans(architecture, **{"patch": PATCH[:dims], "spacing": (1.0,) * dims, **plan})
    channels = len(plans["configurations"]["3d_fullres"]["normalization_schemes"])
    networks = [nnunet.network(architecture["arch_kwargs"], channels, outputs, seed) for seed in range(folds)]
    for network in networks:
        network.decoder.seg_layers[-1].bias.data[0] += background
    return plans, networks


@pytest.fixture
def model(nnunet, tmp_path):
    """Write a small model with its options to a new folder."""

    def write(folds=1, outputs=3, plan=None, **options):
        plans, networks = small(nnunet, folds, outputs, **(plan or {}))
        return nnunet.write(tmp_path / NAME, plans, networks, **options), networks

    return write


def image(folder, shape=PATCH):
    """A scan that fills the patch, in ITK's order of axes; its path."""
    array = np.random.default_rng(3).normal(100, 20, shape).astype(np.float32)
    path = folder / "case_0000.nii.gz"
    nib.save(nib.Nifti1Image(array.transpose(), np.eye(4)), path)
    return path, torch.from_numpy((array - array.mean()) / array.std())[None, None]


def logits_by_hand(networks, x, axes):
    """The mean over folds and flips, (K, z, y, x)."""
    flips = [flip for n in range(len(axes) + 1) for flip in combinations([axis + 2 for axis in axes], n)]
    return torch.stack([network(x.flip(flip)).flip(flip) for network in networks for flip in flips]).mean(0)[0]


@pytest.mark.parametrize("mirror", [None, (0, 2)])
@pytest.mark.parametrize("folds", [1, 3])
def test_masks_of_folds_and_mirroring(model, tmp_path, folds, mirror):
    folder, networks = model(folds, mirror=mirror)
    path, x = image(tmp_path)
    expected = logits_by_hand(networks, x, mirror or ()).argmax(0).numpy()
    assert len(np.unique(expected)) == 3
    mask = Predictor.load(folder, device="cpu")(path)
    np.testing.assert_array_equal(mask.values.transpose(), expected)
    assert list(mask.voxels) == ["anterior", "posterior"]


def test_without_mirroring_if_asked(model, tmp_path):
    folder, networks = model(mirror=(0, 1, 2))
    path, x = image(tmp_path)
    mask = Predictor.load(folder, device="cpu", inference={"tta": False})(path)
    np.testing.assert_array_equal(mask.values.transpose(), logits_by_hand(networks, x, ()).argmax(0).numpy())


def test_regions_are_painted_as_they_are(model, tmp_path):
    options = {"labels": REGIONS, "dataset": {"regions_class_order": [1, 2]}}
    folder, networks = model(outputs=2, **options)
    path, x = image(tmp_path)
    whole, core = logits_by_hand(networks, x, ()) > 0
    expected = np.where(core, 2, np.where(whole, 1, 0))
    assert (core & ~whole).any()  # where medseg's own regions would be made to nest
    mask = Predictor.load(folder, device="cpu")(path)
    np.testing.assert_array_equal(mask.values.transpose(), expected)


def test_a_2d_network_goes_through_slices(model, tmp_path):
    folder, [network] = model(plan={"dims": 2}, mirror=(1,))
    path, x = image(tmp_path, (5, 8, 8))
    slices = [logits_by_hand([network], x[:, :, z], (1,)).argmax(0).numpy() for z in range(5)]
    np.testing.assert_array_equal(Predictor.load(folder, device="cpu")(path).values.transpose(), slices)


def test_pictures(model, tmp_path):
    from PIL import Image

    plan = {"dims": 2, "reader": "NaturalImage2DIO", "schemes": ["RGBTo01Normalization"] * 3}
    folder, [network] = model(plan=plan, channels=("R", "G", "B"))
    pixels = np.random.default_rng(4).integers(1, 255, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "case_0000.png")
    predictor = Predictor.load(folder, device="cpu")
    assert predictor.endings == [["_0000", ""]]
    x = torch.from_numpy(pixels).movedim(-1, 0)[None] / 255
    np.testing.assert_array_equal(predictor(tmp_path / "case_0000.png").values, network(x)[0].argmax(0))


def test_a_folder_of_two_channels_from_the_command_line(model, tmp_path):
    folder, [network] = model(plan={"schemes": ["ZScoreNormalization", "NoNormalization"]}, channels=("MRI", "PET"))
    scans = tmp_path / "scans"
    scans.mkdir()
    _, mri = image(scans)
    pet = np.random.default_rng(6).normal(size=PATCH).astype(np.float32)
    nib.save(nib.Nifti1Image(pet.transpose(), np.eye(4)), scans / "case_0001.nii.gz")
    done = main(["predict", f"checkpoint={folder}", f"input={scans}", f"output={tmp_path / 'masks'}", "device=cpu"])
    assert done == 0
    mask = np.asarray(nib.load(tmp_path / "masks" / "case.nii.gz").dataobj)
    expected = network(torch.cat([mri, torch.from_numpy(pet)[None, None]], 1))[0].argmax(0)
    np.testing.assert_array_equal(mask.transpose(), expected)


def postprocessing(folder, *groups, place="crossval_results_folds_0", name="remove_all_but_largest_component"):
    content = {
        "postprocessing_fns": [f"{name}_from_segmentation"] * len(groups),
        "postprocessing_kwargs": [{"labels_or_regions": group} for group in groups],
    }
    (folder / place).mkdir(exist_ok=True)
    (folder / place / "postprocessing.json").write_text(json.dumps(content))


def keep_largest(mask, values):
    components, count = label(np.isin(mask, values), np.ones((3, 3, 3)))
    sizes = [(components == component).sum() for component in range(1, count + 1)]
    largest = [component for component, size in enumerate(sizes, 1) if size == max(sizes)]
    return np.where(np.isin(mask, values) & ~np.isin(components, largest), 0, mask)


@pytest.mark.parametrize("groups", [[[1, 2]], [2], [[1, 2], 1], [[[1, 2]]]])
def test_postprocessing(model, tmp_path, groups):
    folder, networks = model(plan={"background": 2.5})  # so that the foreground falls into pieces
    path, x = image(tmp_path)
    postprocessing(folder, *groups)
    expected = found = logits_by_hand(networks, x, ()).argmax(0).numpy()
    for group in groups:
        expected = keep_largest(expected, np.ravel(group))
    assert (expected != found).any()
    mask = Predictor.load(folder, device="cpu")(path)
    np.testing.assert_array_equal(mask.values.transpose(), expected)


def test_postprocessing_that_is_not_known(model):
    folder, _ = model()
    postprocessing(folder, [1, 7])
    with pytest.raises(MedsegError, match="labels among"):
        read_nnunet(folder)
    postprocessing(folder, [1], name="fill_holes")
    with pytest.raises(MedsegError, match="fill_holes_from_segmentation"):
        read_nnunet(folder)


def test_postprocessing_that_is_not_applied(model, caplog):
    folder, _ = model()
    postprocessing(folder, [1], place="crossval_results_folds_0_1")
    [read] = read_nnunet(folder)
    assert read.largest_of == []
    assert "chosen with other folds than 0" in caplog.text
    (folder / "crossval_results_folds_0").mkdir()
    (folder / "crossval_results_folds_0" / "postprocessing.pkl").write_bytes(b"cos\nsystem\n(S'echo'\ntR.")
    read_nnunet(folder)
    assert "a pickle can run any code" in caplog.text


def test_what_a_path_may_be(model, tmp_path):
    folder, _ = model(folds=2)
    for path, count in ((folder, 2), (folder / "fold_1", 1), (folder / "fold_1" / "checkpoint_final.pth", 1)):
        assert is_nnunet(path)
        assert [read.path.parent.name for read in read_models(path)] == ["fold_0", "fold_1"][-count:]
    assert not is_nnunet(tmp_path)
    assert not is_nnunet(tmp_path / "none")


def test_all_cases_in_one_fold(model):
    folder, _ = model()
    (folder / "fold_0").rename(folder / "fold_all")
    assert [read.path.parent.name for read in read_nnunet(folder)] == ["fold_all"]


def test_a_training_that_has_not_ended(model, caplog):
    folder, _ = model(folds=2)
    (folder / "fold_0" / "checkpoint_final.pth").rename(folder / "fold_0" / "checkpoint_best.pth")
    assert [read.path.name for read in read_nnunet(folder)] == ["checkpoint_best.pth", "checkpoint_final.pth"]
    assert "fold_0: its training has not ended; checkpoint_best.pth is taken" in caplog.text
    (folder / "fold_0" / "checkpoint_best.pth").unlink()
    assert len(read_nnunet(folder)) == 1
    assert "fold_0: left out" in caplog.text
    (folder / "fold_1" / "checkpoint_final.pth").unlink()
    with pytest.raises(MedsegError, match=r"no fold with checkpoint_final\.pth or checkpoint_best\.pth"):
        read_nnunet(folder)


def test_cascades_are_refused(model):
    folder, _ = model(plan={"previous_stage": "3d_lowres"})
    with pytest.raises(MedsegError, match="second network of a cascade"):
        read_nnunet(folder)


def test_configurations_inherit(model):
    folder, _ = model()
    path = folder / "plans.json"
    plans = json.loads(path.read_text())
    plans["configurations"]["base"] = plans["configurations"]["3d_fullres"]
    plans["configurations"]["3d_fullres"] = {"inherits_from": "base", "spacing": [2.0, 2.0, 2.0]}
    path.write_text(json.dumps(plans))
    [read] = read_nnunet(folder)
    assert read.preprocessor.spacing == (2, 2, 2)
    assert read.patch_size == list(PATCH)
    plans["configurations"]["base"]["inherits_from"] = "3d_fullres"
    path.write_text(json.dumps(plans))
    with pytest.raises(MedsegError, match="inherits from itself"):
        read_nnunet(folder)


def test_trainers_of_somebody_s_own(model):
    folder, _ = model(trainer="nnUNetTrainerMine")
    with pytest.raises(MedsegError, match=r"trust=\[nnUNetTrainerMine\]"):
        read_nnunet(folder)
    assert len(read_nnunet(folder, trust=["nnUNetTrainerMine"])) == 1


@pytest.mark.parametrize(("key", "value"), [("preprocessor_name", "Mine"), ("label_manager", "Mine")])
def test_classes_of_somebody_s_own(model, key, value):
    folder, _ = model()
    path = folder / "plans.json"
    plans = json.loads(path.read_text())
    target = plans if key in plans else plans["configurations"]["3d_fullres"]
    target[key] = value
    path.write_text(json.dumps(plans))
    with pytest.raises(MedsegError, match=f"{key} is Mine"):
        read_nnunet(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_damaged_plans(model, text):
    folder, _ = model()
    (folder / "plans.json").write_text(text)
    with pytest.raises(MedsegError, match=r"plans\.json"):
        read_nnunet(folder)


def test_plans_that_lack_something(model):
    folder, _ = model()
    plans = json.loads((folder / "plans.json").read_text())
    del plans["configurations"]["3d_fullres"]["spacing"]
    (folder / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(MedsegError, match="does not say spacing"):
        read_nnunet(folder)
