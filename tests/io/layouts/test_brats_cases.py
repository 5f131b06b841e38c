"""BraTS: every generation's names, patients, label values and regions, in trees made by hand."""

import csv
import json
import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from brats_phantom import write_brats
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from medseg.config.check import check_values, resolve
from medseg.config.schema import CONF, typed
from medseg.config.settings import KEYS, DatasetSettings
from medseg.errors import MedsegError
from medseg.inference.segmenter import Regions
from medseg.io.datasets.dataset import label_map, open_dataset
from medseg.io.files.read import read_case, read_mask
from medseg.io.labels import LabelMap
from medseg.io.layouts import brats_cases
from medseg.io.layouts.brats_cases import ENDINGS, GENERATIONS, brats, joined
from medseg.io.layouts.channels import cases_from_files
from medseg.io.layouts.synthetic import CORE, EDEMA, ENHANCING, make_phantom

OLD = ("_flair", "_t1", "_t1ce", "_t2", "_seg")
NEW = ("-t2f", "-t1n", "-t1c", "-t2w", "-seg")
VSD = ("VSD.Brain.XX.O.MR_Flair", "VSD.Brain.XX.O.MR_T1", "VSD.Brain.XX.O.MR_T1c", "VSD.Brain.XX.O.MR_T2")

# The file values of each region, and the value that it is painted with: DESIGN.md, "BraTS by generation".
VALUES = {
    "brats2012": ({"WT": {1, 2, 3, 4}, "TC": {1, 3, 4}, "ET": {4}}, {"WT": 2, "TC": 1, "ET": 4}),
    "brats2017": ({"WT": {1, 2, 4}, "TC": {1, 4}, "ET": {4}}, {"WT": 2, "TC": 1, "ET": 4}),
    "brats2023": ({"WT": {1, 2, 3}, "TC": {1, 3}, "ET": {3}}, {"WT": 2, "TC": 1, "ET": 3}),
    "brats2024": (
        {"WT": {1, 2, 3}, "TC": {1, 3}, "ET": {3}, "RC": {4}},
        {"WT": 2, "TC": 1, "ET": 3, "RC": 4},
    ),
    "brats2024_ped": ({"WT": {1, 2, 3, 4}, "TC": {1, 2, 3}, "ET": {1}}, {"WT": 4, "TC": 2, "ET": 1}),
    "decathlon": ({"WT": {1, 2, 3}, "TC": {2, 3}, "ET": {3}}, {"WT": 1, "TC": 2, "ET": 3}),
}


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def case(root: Path, folder: str, *endings: str, suffix: str = ".nii.gz", values: tuple[int, ...] = ()) -> None:
    """Make the files of a case in a folder called like it; a mask of these values where there are any."""
    name = Path(folder).name
    touch(root, *(f"{folder}/{name}{ending}{suffix}" for ending in endings))
    if values:
        voxels = np.array([0, *values], np.uint8).reshape(-1, 1, 1)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), root / folder / f"{name}{endings[-1]}{suffix}")


def names_of(dataset, root: Path) -> list[str]:
    """Return the files of the only case, below its root."""
    (only,) = dataset.cases
    return [path.relative_to(root).as_posix() for path in only.files]


def values_of(dataset) -> tuple[dict[str, set[int]], dict[str, int]]:
    """Return the file values of each region, and the one that it is painted with."""
    classes = LabelMap(dataset.labels, dataset.regions, dataset.region_order)
    members = {name: {classes.values[index] for index in indices} for name, indices in classes.reported.items()}
    painted = [classes.values[index] for index in classes.region_indices]
    return members, dict(zip(dataset.regions, painted, strict=True))


# ---- each generation


@pytest.mark.parametrize(
    ("folder", "endings", "generation", "group"),
    [
        ("HGG/Brats17_TCIA_105_1", OLD, "brats2017", "Brats17_TCIA_105"),
        ("LGG/Brats17_2013_0_1", OLD, "brats2017", "Brats17_2013_0"),
        ("HGG/Brats18_TCIA05_396_1", OLD, "brats2017", "Brats18_TCIA05_396"),
        ("HGG/Brats18_CBICA_AAB_2", OLD, "brats2017", "Brats18_CBICA_AAB"),
        ("LGG/BraTS19_TMC_06290_1", OLD, "brats2017", "BraTS19_TMC_06290"),
        ("BraTS20_Training_001", OLD, "brats2017", "BraTS20_Training_001"),
        ("BraTS2021_00000", OLD, "brats2017", "BraTS2021_00000"),
        ("FeTS2022_00003", OLD, "brats2017", "FeTS2022_00003"),
        ("BraTS-GLI-00000-000", NEW, "brats2023", "BraTS-GLI-00000"),
        ("BraTS-MEN-00004-001", NEW, "brats2023", "BraTS-MEN-00004"),
        ("BraTS-MET-00002-000", NEW, "brats2023", "BraTS-MET-00002"),
        ("BraTS-PED-00030-000", NEW, "brats2023", "BraTS-PED-00030"),
        ("BraTS-SSA-00007-000", NEW, "brats2023", "BraTS-SSA-00007"),
        ("BraTS-GoAT-00012", NEW, "brats2023", "BraTS-GoAT-00012"),
        ("BRATS_HG0001", ("_FLAIR", "_T1", "_T1C", "_T2", "_truth"), "brats2012", "BRATS_HG0001"),
    ],
)
def test_names(tmp_path, folder, endings, generation, group):
    at = f"set/{folder}"
    case(tmp_path, at, *endings, values=(1, 2, 3))
    dataset = brats(tmp_path)
    name = Path(folder).name
    assert names_of(dataset, tmp_path) == [f"{at}/{name}{ending}.nii.gz" for ending in endings]
    assert [(found.id, found.group) for found in dataset.cases] == [(name, group)]
    assert dataset.channels == ("flair", "t1", "t1ce", "t2")
    assert dataset.modality == ("mri",) * 4
    assert values_of(dataset) == VALUES[generation]
    assert dataset.problems == ()


@pytest.mark.parametrize("numbered", [True, False])
def test_names_of_2015(tmp_path, numbered):
    files = [*VSD, "VSD.Brain_3more.XX.O.OT"]
    if numbered:
        files = [f"{file}.{number}/{file}.{number}" for number, file in enumerate(files, 54512)]
    for folder in ("HGG/brats_tcia_pat105_0001", "HGG/brats_2013_pat0001_1", "HG/0001", "LG/0001"):
        touch(tmp_path, *(f"{folder}/{file}.nii" for file in files))
    dataset = brats(tmp_path)
    assert [(found.id, found.group) for found in dataset.cases] == [
        ("HG/0001", "HG/0001"),
        ("LG/0001", "LG/0001"),
        ("brats_2013_pat0001_1", "brats_2013_pat0001"),
        ("brats_tcia_pat105_0001", "brats_tcia_pat105"),
    ]
    assert dataset.cases[0].files == tuple(tmp_path / f"HG/0001/{file}.nii" for file in files)
    assert values_of(dataset) == VALUES["brats2012"]


def describe(root: Path, **content: object) -> None:
    touch(root, "imagesTr/BRATS_001.nii.gz", "labelsTr/BRATS_001.nii.gz")
    modality = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
    labels = {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"}
    training = [{"image": "./imagesTr/BRATS_001.nii.gz", "label": "./labelsTr/BRATS_001.nii.gz"}]
    content = {"modality": modality, "labels": labels, "training": training} | content
    (root / "dataset.json").write_text(json.dumps(content))


@pytest.mark.parametrize("folder", [".", "Task01_BrainTumour"])
@pytest.mark.parametrize("generation", [None, "decathlon"])
def test_decathlon(tmp_path, folder, generation):
    describe(tmp_path / folder)
    dataset = brats(tmp_path, generation)
    root = tmp_path / folder
    assert names_of(dataset, root) == ["imagesTr/BRATS_001.nii.gz", "labelsTr/BRATS_001.nii.gz"]
    assert dataset.channels == ("flair", "t1", "t1ce", "t2")
    assert dataset.endings is None  # one file holds all channels
    assert values_of(dataset) == VALUES["decathlon"]


@pytest.mark.parametrize(
    "content",
    [
        {"modality": {"0": "T1w", "1": "FLAIR", "2": "t1gd", "3": "T2w"}},
        {"labels": {"0": "background", "1": "non-enhancing tumor", "2": "edema", "3": "enhancing tumour"}},
        {"labels": {"0": "background", "1": "edema", "2": "enhancing tumour", "3": "non-enhancing tumor"}},
    ],
)
def test_another_dataset_json_is_refused(tmp_path, content):
    describe(tmp_path, **content)
    with pytest.raises(MedsegError, match=r"are not the Decathlon's\s+Task01_BrainTumour.*dataset=nnunet"):
        brats(tmp_path)


@pytest.mark.parametrize("generation", VALUES)
def test_masks_are_painted_in_the_generations_own_values(tmp_path, generation):
    if generation == "decathlon":
        describe(tmp_path)
    else:
        case(tmp_path, "anything", *OLD)
    dataset = brats(tmp_path, generation)
    classes = LabelMap(dataset.labels, dataset.regions, dataset.region_order)
    inside = {"WT": [0, 1, 1, 1, 0], "TC": [0, 0, 1, 1, 0], "ET": [0, 0, 0, 1, 0], "RC": [0, 0, 0, 0, 1]}
    written = classes.decode(Regions.of(classes).paint([np.array(inside[name]) > 0 for name in dataset.regions]))
    by_hand = {
        "brats2012": [0, 2, 1, 4, 0],
        "brats2017": [0, 2, 1, 4, 0],
        "brats2023": [0, 2, 1, 3, 0],
        "brats2024": [0, 2, 1, 3, 4],
        "brats2024_ped": [0, 4, 2, 1, 0],
        "decathlon": [0, 1, 2, 3, 0],
    }
    assert written.tolist() == by_hand[generation]


# ---- which generation


@pytest.mark.parametrize(
    ("name", "masks", "generation"),
    [
        ("BraTS-GLI-02060-10{}", [(1, 2, 3), (1, 3, 4)], "brats2024"),
        ("BraTS-GLI-02060-10{}", [(4,), (1, 2), (3,)], "brats2024"),
        ("BraTS-MET-00002-00{}", [(1, 2, 3), (3, 4)], "brats2024"),
        ("BraTS-GLI-00000-00{}", [(1, 2, 3), (1, 2)], "brats2023"),
        ("BraTS-GLI-00000-00{}", [(1, 2)], "brats2023"),
        ("BraTS-PED-00001-00{}", [(1, 2), (1, 4)], "brats2024_ped"),
        ("BraTS-PED-00001-00{}", [(1, 2, 3, 4)], "brats2024_ped"),
    ],
)
def test_masks_tell_what_names_leave_open(tmp_path, name, masks, generation):
    for number, values in enumerate(masks):
        case(tmp_path, name.format(number), *NEW, values=values)
    assert values_of(brats(tmp_path)) == VALUES[generation]


def test_masks_are_read_as_far_as_needed(tmp_path, monkeypatch):
    read: list[str] = []
    monkeypatch.setattr(brats_cases, "read_mask", lambda path: read.append(path.name) or read_mask(path))
    case(tmp_path, "BraTS-GLI-00000-000", *NEW, values=(3,))
    case(tmp_path, "BraTS-GLI-00001-000", *NEW)  # an empty file, which the check of all cases will name
    case(tmp_path, "BraTS-GLI-00002-000", *NEW, values=(4,))
    case(tmp_path, "BraTS-GLI-00003-000", *NEW, values=(1,))
    assert values_of(brats(tmp_path)) == VALUES["brats2024"]
    assert read == [f"BraTS-GLI-0000{number}-000-seg.nii.gz" for number in range(3)]


def test_a_generation_that_is_given_spares_reading(tmp_path, monkeypatch):
    monkeypatch.setattr(brats_cases, "read_mask", lambda path: pytest.fail(f"{path} was read"))
    case(tmp_path, "BraTS-GLI-00000-000", *NEW)
    for given, table in (("brats2023", "brats2023"), ("brats2024", "brats2024"), ("brats2025", "brats2024")):
        assert values_of(brats(tmp_path, given)) == VALUES[table]


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("BraTS-GLI-00000-000", (1, 2, 4), "names of brats2023, masks with 4 but no 3: 1 cases"),
        ("BRATS_HG0001", (1, 2), "names of the first release of brats2012, masks with neither 3 nor 4: 1 cases"),
        ("patient7", (1, 2, 4), "names of no generation: 1 cases, such as patient7"),
    ],
)
def test_unclear_generations_are_asked_for(tmp_path, name, values, words):
    case(tmp_path, name, *OLD, values=values)
    with pytest.raises(MedsegError, match=r"no clear generation") as error:
        brats(tmp_path)
    assert words in str(error.value)
    assert "dataset.generation=brats2012|brats2013|" in str(error.value)


def test_mixed_generations_are_named(tmp_path):
    case(tmp_path, "HGG/Brats18_TCIA05_396_1", *OLD)
    case(tmp_path, "HGG/Brats17_TCIA_105_1", *OLD)
    assert len(brats(tmp_path).cases) == 2  # of one label table
    case(tmp_path, "BraTS-GLI-00000-000", *NEW, values=(1, 2, 3))
    with pytest.raises(MedsegError, match="cases of several generations") as error:
        brats(tmp_path)
    assert "brats2017: 2 cases, such as Brats17_TCIA_105_1" in str(error.value)
    assert "brats2023: 1 cases, such as BraTS-GLI-00000-000" in str(error.value)
    assert values_of(brats(tmp_path, "brats2018")) == VALUES["brats2017"]


def test_decathlon_among_others_is_named(tmp_path):
    describe(tmp_path / "Task01_BrainTumour")
    case(tmp_path, "BraTS2021_00000", *OLD)
    with pytest.raises(MedsegError, match=r"several generations(.|\n)*decathlon: .*Task01_BrainTumour"):
        brats(tmp_path)
    assert [found.id for found in brats(tmp_path, "brats2021").cases] == ["BraTS2021_00000"]
    assert [found.id for found in brats(tmp_path, "decathlon").cases] == ["BRATS_001"]


def test_a_choice_against_the_names_is_warned_of(tmp_path, caplog):
    caplog.set_level("WARNING", "medseg")  # which the command line, tested before, leaves at INFO
    case(tmp_path, "Brats18_TCIA05_396_1", *OLD)
    assert values_of(brats(tmp_path, "brats2023")) == VALUES["brats2023"]
    assert "dataset.generation=brats2023, but there are names of brats2017" in caplog.text
    caplog.clear()
    brats(tmp_path, "brats2020")
    assert not caplog.records


def test_choices_are_those_of_the_key():
    assert set(KEYS["dataset.generation"].allowed) == set(GENERATIONS)
    assert {name: GENERATIONS[name] for name in ("brats2015", "brats2018", "brats2021", "brats2023", "brats2025")} == {
        "brats2015": "brats2012",
        "brats2018": "brats2017",
        "brats2021": "brats2017",
        "brats2023": "brats2023",
        "brats2025": "brats2024",
    }


# ---- patients


def test_time_points_are_one_group(tmp_path):
    for folder in ("BraTS-GLI-00005-000", "BraTS-GLI-00005-001", "BraTS-GLI-00006-000"):
        case(tmp_path, folder, *NEW, values=(3,))
    assert [found.group for found in brats(tmp_path).cases] == ["BraTS-GLI-00005", "BraTS-GLI-00005", "BraTS-GLI-00006"]


YEARS = "BraTS_2017_subject_ID,BraTS_2018_subject_ID,TCGA_TCIA_subject_ID,BraTS_2019_subject_ID,BraTS_2020_subject_ID"
MAPPING = f"""Grade,{YEARS}
HGG,Brats17_CBICA_AAB_1,Brats18_CBICA_AAB_1,NA,BraTS19_CBICA_AAB_1,BraTS20_Training_001
HGG,NA,NA,NA,BraTS19_CBICA_AAB_2,BraTS20_Training_002
HGG,NA,NA,TCGA-02-0006,BraTS19_TCIA01_131_1,BraTS20_Training_003
LGG,NA,NA,TCGA-02-0006,NA,BraTS20_Training_004
LGG,NA,NA,NA,NA,BraTS20_Training_005
LGG,NA,NA,NA,NA,BraTS20_Training_006
"""


@pytest.mark.parametrize("place", [".", "MICCAI_BraTS2020_TrainingData", ".."])
def test_a_name_mapping_joins_the_cases_of_a_patient(tmp_path, place):
    root = tmp_path / "data"
    for number in range(1, 7):
        case(root, f"MICCAI_BraTS2020_TrainingData/BraTS20_Training_00{number}", *OLD)
    (root / place / "name_mapping.csv").write_text(MAPPING)
    (root / "survival_info.csv").write_text("Brats20ID,Age\nBraTS20_Training_001,60\nBraTS20_Training_005\n")
    one, two, three, four, five, six = (found.group for found in brats(root).cases)
    assert (one, two, three, four) == ("BraTS20_Training_001",) * 2 + ("BraTS20_Training_003",) * 2
    assert (five, six) == ("BraTS20_Training_005", "BraTS20_Training_006")


def test_names_are_joined_through_others():
    together = joined([{"a", "b"}, {"c", "d"}, {"e"}, {"b", "c"}])
    assert together == {name: set("abcd") for name in "abcd"} | {"e": {"e"}}


def test_columns_without_subjects_join_nothing(tmp_path):
    for number in (1, 2):
        case(tmp_path, f"BraTS2021_0000{number}", *OLD)
    (tmp_path / "BraTS21-17_Mapping.csv").write_text(
        "BraTS2021;BraTS2017;Site No;Data Collection;Used in\n"
        "BraTS2021_00001;NA;1;TCGA-GBM;BraTS2017\n"
        "BraTS2021_00002;NA;1;TCGA-GBM;BraTS2017\n"
    )
    assert [found.group for found in brats(tmp_path).cases] == ["BraTS2021_00001", "BraTS2021_00002"]


def test_a_name_mapping_that_cannot_be_read_is_a_problem(tmp_path, caplog):
    case(tmp_path, "BraTS2021_00001", *OLD)
    (tmp_path / "name_mapping.csv").write_text("a,b\n1\n")
    touch(tmp_path, "BraTS21_Mapping.xlsx")
    (problem,) = brats(tmp_path).problems
    assert "name_mapping.csv: line 2 has not 2 cells" in problem
    assert "BraTS21_Mapping.xlsx is not read: save it as CSV" in caplog.text


# ---- files as they lie


def test_flat_folders(tmp_path):
    for name in ("BraTS20_Training_354", "BraTS20_Training_355"):
        touch(tmp_path, *(f"{name}{ending}.nii" for ending in OLD[:4]))
    touch(tmp_path, "BraTS20_Training_354_seg.nii", "W39_1998.09.19_Segm.nii")
    dataset = brats(tmp_path)
    assert {found.id: found.labels[0].path.name for found in dataset.cases} == {
        "BraTS20_Training_354": "BraTS20_Training_354_seg.nii",
        "BraTS20_Training_355": "W39_1998.09.19_Segm.nii",
    }


def test_a_mask_of_another_name_belongs_to_the_only_case_of_its_folder(tmp_path):
    case(tmp_path, "BraTS20_Training_355", *OLD[:4], suffix=".nii")
    touch(tmp_path, "BraTS20_Training_355/W39_1998.09.19_Segm.nii")
    assert names_of(brats(tmp_path), tmp_path)[-1] == "BraTS20_Training_355/W39_1998.09.19_Segm.nii"


def test_upper_and_lower_case_suffixes_and_other_files(tmp_path):
    touch(tmp_path, "a/BraTS20_Training_001_FLAIR.nii", "a/BraTS20_Training_001_t1.NII.GZ")
    touch(tmp_path, "a/brats20_training_001_T1ce.nii.gz", "a/BraTS20_Training_001_T2.nii")
    touch(tmp_path, "a/BraTS20_Training_001_Seg.nii.gz")
    touch(tmp_path, "notes.txt", "a/preview.png", "a/BraTS20_Training_001_brain.nii.gz", ".trash/x_t1.nii.gz")
    touch(tmp_path, "a/._BraTS20_Training_001_t1.nii.gz", "dataset.json", "survival.xlsx", "b/empty/readme")
    assert names_of(brats(tmp_path), tmp_path) == [
        "a/BraTS20_Training_001_FLAIR.nii",
        "a/BraTS20_Training_001_t1.NII.GZ",
        "a/brats20_training_001_T1ce.nii.gz",
        "a/BraTS20_Training_001_T2.nii",
        "a/BraTS20_Training_001_Seg.nii.gz",
    ]


def test_scans_unpacked_into_folders_of_their_names(tmp_path):
    files = [f"BraTS2021_00000/BraTS2021_00000{ending}.nii/0000057_brain.nii" for ending in OLD]
    touch(tmp_path, *files)
    assert names_of(brats(tmp_path), tmp_path) == files


def test_unlabelled_cases_are_kept_apart(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    case(tmp_path, "Training/BraTS20_Training_001", *OLD)
    case(tmp_path, "Validation/BraTS20_Validation_001", *OLD[:4])
    dataset = brats(tmp_path)
    assert [found.id for found in dataset.cases] == ["BraTS20_Training_001"]
    assert dataset.problems == ()
    assert [(found.id, len(found.images), found.labels) for found in dataset.unlabelled] == [
        ("BraTS20_Validation_001", 4, ())
    ]
    assert "1 cases have no mask, such as BraTS20_Validation_001" in caplog.text


def test_what_is_wrong_with_labelled_cases_is_listed(tmp_path):
    case(tmp_path, "BraTS2021_00000", *OLD)
    case(tmp_path, "BraTS2021_00001", "_t1", "_t2", "_seg")
    case(tmp_path, "BraTS2021_00002", *OLD)
    case(tmp_path, "BraTS2021_00002", "_seg", suffix=".nii")
    case(tmp_path, "BraTS2021_00003", *OLD)
    case(tmp_path, "copy/BraTS2021_00003", "_t1")
    touch(tmp_path, "masks/BraTS2021_00009_seg.nii.gz")
    dataset = brats(tmp_path)
    assert [found.id for found in dataset.cases] == ["BraTS2021_00000"]
    missing, masks, copies, stray = dataset.problems
    assert missing == "BraTS2021_00001 has no flair and no t1ce"
    assert masks.startswith("BraTS2021_00002 has several files for one part: ")
    assert "00002_seg.nii, " in masks
    assert "00002_seg.nii.gz" in masks
    assert "copy/BraTS2021_00003/BraTS2021_00003_t1.nii.gz" in copies
    assert stray == f"{tmp_path / 'masks/BraTS2021_00009_seg.nii.gz'} is a mask of no case"


def test_a_folder_of_meta_images(tmp_path):
    files = [*VSD, "VSD.Brain_3more.XX.O.OT"]
    names = [f"HGG/brats_tcia_pat105_0001/{file}.1/{file}.1.mha" for file in files]
    touch(tmp_path, *names)
    assert names_of(brats(tmp_path, "brats2013"), tmp_path) == names


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["BraTS20_Validation_001/BraTS20_Validation_001_t1.nii.gz"], "has a mask, whose name ends in _seg or"),
        (["images/a.nii.gz", "masks/a.nii.gz"], "no BraTS scans. Their names end in _flair, _t1, _t1ce, _t2 or"),
    ],
)
def test_nothing_to_train_on(tmp_path, files, words):
    touch(tmp_path, *files)
    with pytest.raises(MedsegError, match=words):
        brats(tmp_path)


def test_wrong_arguments(tmp_path):
    (tmp_path / "BraTS").mkdir()
    describe(tmp_path / "Task01_BrainTumour")
    with pytest.raises(MedsegError, match="no BraTS scans"):
        brats(tmp_path, "brats2018")
    with pytest.raises(MedsegError, match=r"no such folder\. Did you mean '.*BraTS'"):
        brats(tmp_path / "Brats")
    with pytest.raises(MedsegError, match=r"dataset\.generation=2018 is none of brats2012, "):
        brats(tmp_path, "2018")


# ---- the phantoms of each generation


PARTS = (EDEMA, CORE, ENHANCING)


@pytest.mark.parametrize(
    ("layout", "mask", "unlabelled"),
    [
        (
            "brats2012",
            "TrainingData/HGG/brats_tcia_pat000_0002/VSD.Brain_3more.XX.O.OT",
            "ValidationData/brats_tcia_pat002_0001/VSD.Brain.XX.O.MR_T1c",
        ),
        (
            "brats2018",
            "TrainingData/HGG/Brats18_TCIA05_000_2/Brats18_TCIA05_000_2_seg",
            "ValidationData/Brats18_TCIA05_002_1/Brats18_TCIA05_002_1_t1ce",
        ),
        (
            "brats2020",
            "TrainingData/BraTS20_Training_356/BraTS20_Training_356_seg",
            "ValidationData/BraTS20_Validation_359/BraTS20_Validation_359_t1ce",
        ),
        (
            "brats2023",
            "TrainingData/BraTS-GLI-00000-001/BraTS-GLI-00000-001-seg",
            "ValidationData/BraTS-GLI-00002-000/BraTS-GLI-00002-000-t1c",
        ),
        (
            "brats2024",
            "TrainingData/BraTS-GLI-00000-101/BraTS-GLI-00000-101-seg",
            "ValidationData/BraTS-GLI-00002-100/BraTS-GLI-00002-100-t1c",
        ),
        ("brats_decathlon", "labelsTr/BRATS_001", "imagesTs/BRATS_004"),
    ],
)
def test_brats(tmp_path, layout, mask, unlabelled):
    root = write_brats(tmp_path / "set", layout, size=20, seed=3, cases=3)
    made, label = make_phantom(1, dims=3, channels=4, size=20, seed=3)
    values = np.asarray(nib.load(root / f"{mask}.nii.gz").dataobj)
    edema, core, enhancing = (np.unique(values[label == part]).tolist() for part in PARTS)
    assert np.unique(values[label == 0]).tolist() == [0]
    by_hand = {
        "brats2012": ([2], [1, 3], [4]),
        "brats2018": ([2], [1], [4]),
        "brats2020": ([2], [1], [4]),
        "brats2023": ([2], [1], [3]),
        "brats2024": ([2], [1, 4], [3]),
        "brats_decathlon": ([1], [2], [3]),
    }
    assert (edema, core, enhancing) == by_hand[layout]
    if len(core) == 2:  # the fourth class is the upper half of the core
        lower, upper = (
            nib.affines.apply_affine(made.affine, np.argwhere((values == v) & (label == CORE)))[:, 2] for v in core
        )
        assert lower.max() < upper.min()
    contrast = make_phantom(4, dims=3, channels=4, size=20, seed=3)[0].image[1]  # of a patient without masks
    stored = nib.load(root / f"{unlabelled}.nii.gz").get_fdata()
    np.testing.assert_array_equal(stored[..., 2] if stored.ndim == 4 else stored, contrast)
    assert len(list(root.rglob("*.nii.gz"))) == (8 if layout == "brats_decathlon" else 5 * 3 + 4 * 2)


def test_brats_2020_has_its_oddities(tmp_path):
    root = write_brats(tmp_path / "set", "brats2020", size=20, seed=3, cases=3)
    assert (root / "TrainingData/BraTS20_Training_355/W39_1998.09.19_Segm.nii.gz").is_file()
    assert not (root / "TrainingData/BraTS20_Training_355/BraTS20_Training_355_seg.nii.gz").exists()
    assert (root / "TrainingData/name_mapping.csv").read_text().split() == [
        "Grade,BraTS_2019_subject_ID,BraTS_2020_subject_ID",
        "HGG,BraTS19_TCIA05_000_1,BraTS20_Training_355",
        "HGG,BraTS19_TCIA05_000_2,BraTS20_Training_356",
        "LGG,BraTS19_TCIA05_001_1,BraTS20_Training_357",
    ]


def test_brats_2021_has_a_patient_a_case(tmp_path):
    root = write_brats(tmp_path / "set", "brats2021", size=20, seed=3, cases=3)
    with (root / "groups.csv").open(newline="") as file:
        groups = {row["id"]: row["group"] for row in csv.DictReader(file)}
    assert len(set(groups.values())) == len(groups) == 5
    image = nib.load(root / "TrainingData/BraTS2021_00356/BraTS2021_00356_t2.nii.gz")
    scan, _ = make_phantom(2, dims=3, channels=4, size=20, seed=3)  # of the second patient
    np.testing.assert_array_equal(image.get_fdata(), scan.image[3])


# ---- through the config, and on to prediction


@pytest.mark.parametrize(
    ("layout", "table"),
    [
        ("brats2012", "brats2012"),
        ("brats2018", "brats2017"),
        ("brats2020", "brats2017"),
        ("brats2021", "brats2017"),
        ("brats2023", "brats2023"),
        ("brats2024", "brats2024"),
        ("brats_decathlon", "decathlon"),
    ],
)
def test_phantoms_of_each_generation(tmp_path, layout, table):
    root = write_brats(tmp_path / "set", layout, cases=4, size=16, seed=1)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = OmegaConf.to_container(compose("train", ["dataset=brats", f"dataset.root={root}"]))
    assert check_values(composed) == []
    dataset = open_dataset(typed(DatasetSettings, resolve({"dataset": composed["dataset"]})["dataset"]))
    assert dataset.problems == ()
    assert label_map(dataset).outputs == tuple(VALUES[table][0])
    assert values_of(dataset) == VALUES[table]
    groups = [found.group for found in dataset.cases]
    assert len(groups) == 4
    assert len(set(groups)) == (4 if layout in ("brats2021", "brats_decathlon") else 2)
    made, label = make_phantom(0, dims=3, channels=4, size=16, seed=1)  # flair, t1gd, t1, t2
    np.testing.assert_array_equal(read_case(dataset.cases[0]).image, made.image[[0, 2, 1, 3]])
    mask = np.asarray(nib.load(dataset.cases[0].labels[0].path).dataobj)
    regions = {"WT": (EDEMA, CORE, ENHANCING), "TC": (CORE, ENHANCING), "ET": (ENHANCING,)}
    cavity = np.isin(mask, list(VALUES[table][0].get("RC", set())))
    for name, classes in regions.items():
        members = np.isin(label, classes) & ~cavity
        np.testing.assert_array_equal(np.isin(mask, list(VALUES[table][0][name])), members)


@pytest.mark.parametrize("layout", ["brats2012", "brats2018", "brats2020", "brats2021", "brats2023"])
def test_a_model_of_any_generation_finds_the_channels_of_another(tmp_path, layout):
    root = write_brats(tmp_path / "set", layout, cases=1, size=16, seed=1)
    folder = root / "ValidationData"
    found, problems = cases_from_files(folder, sorted(folder.rglob("*.nii.gz")), ENDINGS)
    assert problems == []
    assert len(found) == 2
    contrasts = (
        read_case(found[0]).image,
        make_phantom(4 if layout == "brats2021" else 2, dims=3, channels=4, size=16, seed=1)[0].image,
    )
    np.testing.assert_array_equal(contrasts[0], contrasts[1][[0, 2, 1, 3]])


def test_classes_instead_of_regions(tmp_path):
    case(tmp_path, "BraTS2021_00000", *OLD)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = ["dataset=brats", f"dataset.root={tmp_path}", "dataset.regions={}"]
        composed = OmegaConf.to_container(compose("train", overrides))
    assert check_values(composed) == []
    classes = label_map(open_dataset(typed(DatasetSettings, resolve({"dataset": composed["dataset"]})["dataset"])))
    assert classes.outputs == ("background", "necrosis", "edema", "enhancing")
