"""What holds for every format: names, channels, grids, labels, and writing whole or not at all."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scan_files import read_scan

from medseg.errors import MedsegError
from medseg.io.files.read import find_images, read_mask, stem, suffix
from medseg.io.files.write_masks import mask_name, write_mask
from medseg.io.formats import nifti

AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


def save(path, array, affine=AFFINE):
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def volume(value=0.0, shape=(4, 5, 6)):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape) + np.float32(value)


@pytest.mark.parametrize(
    ("name", "ending", "rest"),
    [
        ("a.nii.gz", ".nii.gz", "a"),
        ("A.B.NII.GZ", ".nii.gz", "A.B"),
        ("a.nii", ".nii", "a"),
        ("x.dcm.png", ".png", "x.dcm"),
        ("Müller (1).JPEG", ".jpeg", "Müller (1)"),
        ("a.b.seg.nrrd", ".seg.nrrd", "a.b"),
        ("T1 (2).dicom", ".dicom", "T1 (2)"),
        ("CT.1.2.840", "", "CT.1.2.840"),
    ],
)
def test_suffix_and_stem(name, ending, rest):
    assert (suffix(Path("d") / name), stem(Path("d") / name)) == (ending, rest)


def test_unknown_kind_of_file_lists_what_is_allowed(tmp_path):
    (tmp_path / "x.txt").write_text("no scan")
    with pytest.raises(MedsegError, match=r"x.txt: unknown kind.*\.nii\.gz, .*\.nrrd, .*\.png, .*\.bmp, or DICOM"):
        read_scan([tmp_path / "x.txt"])


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("a.nii.gz", "a.nii.gz"),
        ("a.jpg", "a.png"),
        ("b.JPEG", "b.png"),
        ("c.TIF", "c.TIF"),
        ("d.nrrd", "d.nrrd"),
        ("e.mhd", "e.mha"),
        ("f.nhdr", "f.nrrd"),
        ("g.dcm", "g.nii.gz"),
        ("T1 (2).dicom", "T1 (2).nii.gz"),
        ("h.zip", "h.nii.gz"),
        ("CT.1.2", "CT.1.2.nii.gz"),
    ],
)
def test_mask_name(image, mask):
    assert mask_name(Path("folder") / image) == mask


def test_find_images_is_sorted_deep_and_blind_to_hidden_files(tmp_path):
    for name in ["b/2.png", "a.nii.gz", "b/1.PNG", "._a.nii.gz", ".hidden/x.png", "notes.txt"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
    assert found == ["a.nii.gz", "b/1.PNG", "b/2.png"]
    assert find_images(tmp_path / "a.nii.gz") == [tmp_path / "a.nii.gz"]


def test_find_images_says_what_is_there_instead(tmp_path):
    (tmp_path / "scans").mkdir()
    for name in ("1.txt", "2.txt", "3"):
        (tmp_path / "scans" / name).touch()
    with pytest.raises(MedsegError, match=r"no scans here.* 2 with \.txt, 1 with no suffix"):
        find_images(tmp_path / "scans")
    with pytest.raises(MedsegError, match="Did you mean 'scans'"):
        find_images(tmp_path / "scan")


def test_channels_are_stacked_in_order(tmp_path):
    paths = [save(tmp_path / f"{i}.nii", volume(i)) for i in range(3)]
    nudged = AFFINE.copy()
    nudged[0, 3] += 0.05
    paths.append(save(tmp_path / "nudged.nii", volume(3), nudged))
    scan = read_scan(paths)
    np.testing.assert_array_equal(scan.image, [volume(i) for i in range(4)])
    np.testing.assert_array_equal(scan.affine, AFFINE)


def test_channels_on_different_grids_are_refused(tmp_path):
    first = save(tmp_path / "a.nii", volume())
    with pytest.raises(MedsegError, match=r"b.nii: its shape \(4, 5, 7\) differs from \(4, 5, 6\) of .*a.nii"):
        read_scan([first, save(tmp_path / "b.nii", volume(shape=(4, 5, 7)))])
    with pytest.raises(MedsegError, match=r"c.nii: its affine differs from that of .*a.nii by up to 8 voxels"):
        read_scan([first, save(tmp_path / "c.nii", volume(), np.diag([1, 4, 3, 1]))])


@pytest.mark.parametrize(("shift", "accepted"), [(0.09, True), (0.11, False)])
def test_grid_tolerance_is_a_tenth_of_the_smallest_voxel_at_the_far_corner(tmp_path, shift, accepted):
    affine = np.diag([0.5, 2, 3, 1])
    scan = read_scan([save(tmp_path / "a.nii", volume(), affine)])
    turned = affine.copy()
    turned[0, 2] = shift * 0.5 / 5  # only the corners with k = 5 move that far
    mask = save(tmp_path / "m.nii", np.zeros((4, 5, 6), np.uint8), turned)
    if accepted:
        read_mask(mask, scan)
    else:
        with pytest.raises(MedsegError, match=r"m.nii: its affine differs from that of .*a.nii by up to 0.11 voxels"):
            read_mask(mask, scan)


def test_missing_and_empty_files_are_named(tmp_path):
    save(tmp_path / "case_1.nii.gz", volume())
    (tmp_path / "empty.png").touch()
    with pytest.raises(MedsegError, match=r"case_l.nii.gz: there is no such file. Did you mean 'case_1.nii.gz'"):
        read_scan([tmp_path / "case_l.nii.gz"])
    with pytest.raises(MedsegError, match=r"empty.png: the file is empty \(0 bytes\)"):
        read_scan([tmp_path / "empty.png"])


def test_voxels_that_are_no_number_are_counted(tmp_path):
    values = volume().astype(np.float64)
    values[0, 0, :3] = [np.nan, np.inf, -1e300]
    with pytest.raises(MedsegError, match=r"x.nii: 3 of 120 voxels are NaN or infinite"):
        read_scan([save(tmp_path / "x.nii", values)])


def test_whole_numbers_in_any_type_are_labels(tmp_path):
    labels = np.arange(120).reshape(4, 5, 6) % 5
    for dtype in ("u1", "i2", "i4", "f4", "f8"):
        mask = read_mask(save(tmp_path / "m.nii", labels.astype(dtype)))
        assert mask.dtype == np.int32
        np.testing.assert_array_equal(mask, labels)
    image = nib.Nifti1Image(labels.astype("f4"), AFFINE)
    image.header.set_data_dtype(np.int16)  # nibabel stores quantised values and a slope
    nib.save(image, tmp_path / "scaled.nii")
    assert nib.load(tmp_path / "scaled.nii").dataobj.slope != 1
    np.testing.assert_array_equal(read_mask(tmp_path / "scaled.nii"), labels)


@pytest.mark.parametrize(("slope", "intercept"), [(1 / 255, 0), (0.5, -3), (2, 1)])
def test_labels_with_a_scale_and_an_intercept(tmp_path, slope, intercept):
    stored = np.rint((np.arange(120).reshape(4, 5, 6) % 3 * 2 + 1 - intercept) / slope).astype(np.int16)
    image = nib.Nifti1Image(stored, AFFINE)
    image.header.set_slope_inter(slope, intercept)
    nib.save(image, tmp_path / "m.nii")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.nii"), np.arange(120).reshape(4, 5, 6) % 3 * 2 + 1)


def test_large_labels_in_16_bits_with_a_scale(tmp_path):
    labels = np.resize([0, 2, 41, 1035, 2035], (4, 5, 6))  # of an atlas, as float quantised by nibabel
    image = nib.Nifti1Image(labels.astype("f4"), AFFINE)
    image.header.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "m.nii")
    assert np.abs(nib.load(tmp_path / "m.nii").get_fdata() - labels).max() > 0.005
    np.testing.assert_array_equal(read_mask(tmp_path / "m.nii"), labels)


def test_fractions_huge_values_and_channels_are_no_mask(tmp_path):
    with pytest.raises(MedsegError, match=r"p.nii: 120 voxels hold no label, for example 0.5"):
        read_mask(save(tmp_path / "p.nii", np.full((4, 5, 6), 0.5, np.float32)))
    with pytest.raises(MedsegError, match=r"h.nii: 120 voxels hold no label, for example 3e"):
        read_mask(save(tmp_path / "h.nii", np.full((4, 5, 6), 3_000_000_000, np.uint32)))
    with pytest.raises(MedsegError, match=r"c.nii: a mask has one channel, this file has 3"):
        read_mask(save(tmp_path / "c.nii", np.zeros((4, 5, 6, 3), np.uint8)))


def test_mask_of_another_shape_names_both(tmp_path):
    scan = read_scan([save(tmp_path / "a.nii", volume())])
    with pytest.raises(MedsegError, match=r"m.nii: its shape \(6, 5, 4\) differs from \(4, 5, 6\) of .*a.nii"):
        read_mask(save(tmp_path / "m.nii", np.zeros((6, 5, 4), np.uint8)), scan)


def test_failed_writing_leaves_the_old_mask_and_nothing_else(tmp_path, monkeypatch):
    scan = read_scan([save(tmp_path / "a.nii", volume())])
    mask = tmp_path / "out" / "m.nii.gz"
    write_mask(mask, np.ones((4, 5, 6), int), scan)
    before = mask.read_bytes()

    def full_disk(image, path):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nifti.nib, "save", full_disk)
    with pytest.raises(MedsegError, match=r"m.nii.gz.*No space left on device"):
        write_mask(mask, np.zeros((4, 5, 6), int), scan)
    assert [path.name for path in mask.parent.iterdir()] == ["m.nii.gz"]
    assert mask.read_bytes() == before


def test_folder_that_cannot_be_made_is_named(tmp_path):
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "a.png")
    scan = read_scan([tmp_path / "a.png"])
    with pytest.raises(MedsegError, match=r"a.png/m.png"):
        write_mask(tmp_path / "a.png" / "m.png", np.zeros((4, 5), int), scan)


def test_real_channels_share_a_grid(real_data):
    folder = real_data / "ms_lesions/patient07"
    scan = read_scan([folder / "FLAIR.nii.gz", folder / "T2.nii.gz"])
    assert scan.image.shape == (2, 182, 218, 182)
    assert np.unique(read_mask(folder / "lesions.nii.gz", scan)).tolist() == [0, 1]
