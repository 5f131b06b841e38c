"""Patches for a training loop of one's own: those of a training, the same for the same seed."""

import json

import pytest
import torch

import medseg

SMALL = {"trainer": {"steps_per_epoch": 2, "accelerator": "cpu"}, "plan": {"batch_size": 2, "patch_size": [32, 48]}}


@pytest.fixture
def phantom(here) -> medseg.Dataset:
    return medseg.open_dataset("phantom", dims=2, cases=10, size=64)


def images(patches: medseg.Patches) -> torch.Tensor:
    return torch.stack([batch["image"] for batch in patches])


def test_an_iteration_is_an_epoch_and_seeds_fix_it(phantom):
    patches, again = medseg.patches(phantom, **SMALL), medseg.patches(phantom, **SMALL)
    first = images(patches)
    assert first.shape == (2, 2, 1, 32, 48)
    assert torch.equal(first, images(again))
    assert not torch.equal(first, images(patches))
    next(iter(again))  # an epoch that is broken off
    third = images(again)
    assert torch.equal(third, images(patches))
    assert not torch.equal(images(medseg.patches(phantom, seed=1, **SMALL)), first)


def test_batches_hold_known_classes_of_training_cases(phantom):
    patches = medseg.patches(phantom, **SMALL)
    assert patches.cases == list(patches.split.train)
    assert not {*patches.cases} & {*patches.split.val, *patches.split.test}
    for batch in patches:
        assert (batch["image"].dtype, batch["label"].dtype) == (torch.float32, torch.int64)
        assert batch["label"].shape == (2, 1, 32, 48)
        assert {*batch["label"].unique().tolist()} <= {0, 1, 2, 3}
        assert {*batch["index"].tolist()} <= {*range(len(patches.cases))}


def test_without_augmentation_and_preprocessing_patches_are_the_scans_themselves(phantom):
    plain = {"preprocessing": {"normalize": ["none"], "crop": False}, "plan": {"batch_size": 1, "patch_size": [64, 64]}}
    patches = medseg.patches(phantom, augment="none", trainer=SMALL["trainer"], **plain)
    for batch in patches:
        case = phantom[patches.cases[int(batch["index"])]]
        torch.testing.assert_close(batch["image"][0], torch.from_numpy(case.image), rtol=1e-3, atol=0)
        assert torch.equal(batch["label"][0, 0], torch.from_numpy(case.mask).long())


def test_patches_of_all_subsets_have_the_plan_of_a_training(here, tmp_path):
    heads = medseg.open_dataset("phantom", tmp_path / "heads", cases=10, size=24)  # each of another spacing
    small = {"trainer": {"max_epochs": 1, "steps_per_epoch": 1, "accelerator": "cpu"}, "model.base_channels": 4}
    planned = json.loads((medseg.train(heads, run_dir=tmp_path / "run", **small).directory / "plan.json").read_text())
    subsets = [medseg.patches(heads, subset=name, **small) for name in ("train", "val")]
    assert [patches.plan["preprocessing"] for patches in subsets] == [planned["preprocessing"]] * 2
    assert [patches.plan["plan"]["patch_size"] for patches in subsets] == [planned["plan"]["patch_size"]] * 2
    assert [patches.cases for patches in subsets] == [list(subsets[0].split.train), list(subsets[0].split.val)]


def test_patches_are_of_one_stage(phantom):
    with pytest.raises(medseg.MedsegError, match=r"first_stage\.use=channels: these are patches of one stage"):
        medseg.patches(phantom, first_stage={"use": "channels"})


def test_unknown_subsets_and_settings_are_named(phantom):
    with pytest.raises(medseg.MedsegError, match="subset='vall': give one of train, val, all"):
        medseg.patches(phantom, subset="vall", **SMALL)
    with pytest.raises(medseg.MedsegError, match=r"plan\.batch_sise: unknown key"):
        medseg.patches(phantom, plan={"batch_sise": 2})
