"""NIfTI files, compared with SimpleITK and with what nibabel wrote."""

import gzip
import pickle

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scan_files import read_scan

from medseg.errors import MedsegError
from medseg.io.case import Case, LabelFile, Scan
from medseg.io.files.read import read_case, read_mask
from medseg.io.files.write_masks import write_mask

OBLIQUE = np.array([[0.1, -0.9, 0.2, 11], [-1.4, 0.1, 0.3, -7], [0.2, 0.3, 2.4, 5], [0, 0, 0, 1.0]])


def save(path, array, affine=OBLIQUE, **codes):
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(affine, codes.get("sform", 1))
    image.set_qform(affine, codes.get("qform", 0))
    nib.save(image, path)
    return path


def noise(*shape, dtype="f4"):
    return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)


@pytest.mark.parametrize(
    ("stored", "shape"),
    [
        ((4, 5), (1, 4, 5)),
        ((4, 5, 1), (1, 4, 5)),
        ((4, 5, 1, 3), (3, 4, 5)),
        ((4, 5, 1, 1, 3), (3, 4, 5)),
        ((4, 5, 6), (1, 4, 5, 6)),
        ((4, 5, 6, 1), (1, 4, 5, 6)),
        ((4, 5, 1, 1), (1, 4, 5)),
        ((1, 5, 6), (1, 1, 5, 6)),
        ((4, 5, 6, 2), (2, 4, 5, 6)),
        ((4, 5, 6, 1, 3), (3, 4, 5, 6)),
    ],
)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_forms_of_arrays_become_channels_first_and_back(tmp_path, stored, shape, suffix):
    array = noise(*stored)
    scan = read_scan([save(tmp_path / f"x{suffix}", array)])
    assert scan.image.shape == shape
    assert scan.image.dtype == np.float32
    assert scan.image.flags.c_contiguous
    channels = array.reshape(*shape[1:], shape[0])
    np.testing.assert_array_equal(scan.image, np.moveaxis(channels, -1, 0))

    values = (scan.image[0] > 100).astype(np.int32)
    write_mask(tmp_path / f"mask{suffix}", values, scan)
    assert nib.load(tmp_path / f"mask{suffix}").shape == stored[:3]
    np.testing.assert_array_equal(read_mask(tmp_path / f"mask{suffix}", scan), values)


@pytest.mark.parametrize("stored", [(4, 5), (4, 5, 1), (4, 5, 1, 1)])
@pytest.mark.parametrize("image", [(4, 5), (4, 5, 1), (4, 5, 1, 3)])
def test_masks_of_pictures_in_any_form(tmp_path, stored, image):
    scan = read_scan([save(tmp_path / "x.nii", noise(*image))])
    labels = noise(*stored, dtype="u1")
    mask = read_mask(save(tmp_path / "m.nii", labels), scan)
    np.testing.assert_array_equal(mask, labels.reshape(4, 5))


@pytest.mark.parametrize("stored", [(4, 5, 6), (4, 5, 6, 1), (4, 5, 6, 1, 1)])
def test_masks_of_volumes_in_any_form(tmp_path, stored):
    scan = read_scan([save(tmp_path / "x.nii", noise(4, 5, 6, 1))])
    labels = noise(*stored, dtype="u1")
    np.testing.assert_array_equal(read_mask(save(tmp_path / "m.nii", labels), scan), labels.reshape(4, 5, 6))


def test_slices_stored_as_times_are_told_by_the_mask_or_by_what_is_wanted(tmp_path):
    stack, labels = noise(4, 5, 1, 3), noise(4, 5, 1, 3, dtype="u1")
    image, mask = save(tmp_path / "x.nii", stack), save(tmp_path / "m.nii", labels)
    alone = Case("c", "c", (image,))
    assert read_case(alone).image.shape == (3, 4, 5)  # it may as well be the colours of a picture
    for scan in (read_case(Case("c", "c", (image,), (LabelFile(mask),))), read_case(alone, spatial_dims=3)):
        np.testing.assert_array_equal(scan.image, stack.reshape(1, 4, 5, 3))
        np.testing.assert_array_equal(read_mask(mask, scan), labels.reshape(4, 5, 3))
        np.testing.assert_allclose(scan.affine, OBLIQUE, atol=1e-6)
        write_mask(tmp_path / "out.nii", labels.reshape(4, 5, 3), scan)
        written = nib.load(tmp_path / "out.nii")
        np.testing.assert_array_equal(np.asarray(written.dataobj), labels)
        np.testing.assert_array_equal(written.affine, nib.load(image).affine)
    flat = Case("c", "c", (image,), (LabelFile(save(tmp_path / "flat.nii", labels[..., 0])),))
    assert read_case(flat, spatial_dims=2).image.shape == (3, 4, 5)


def test_slices_without_a_distance_are_refused(tmp_path):
    flat = OBLIQUE * [1, 1, 0, 1]
    image = nib.Nifti1Image(noise(4, 5, 1, 3), OBLIQUE)
    image.header.set_sform(flat, 1)
    image.header.set_qform(None, 0)
    image.header["pixdim"][3] = 0
    raw = bytearray(image.to_bytes())
    raw[280:328] = flat[:3].astype("<f4").tobytes()
    (tmp_path / "x.nii").write_bytes(raw)
    assert read_scan([tmp_path / "x.nii"]).image.shape == (3, 4, 5)
    with pytest.raises(MedsegError, match=r"x.nii: the affine .* is singular"):
        read_case(Case("c", "c", (tmp_path / "x.nii",)), spatial_dims=3)


def test_agrees_with_simpleitk_on_oblique_scaled_integers(tmp_path):
    path = tmp_path / "x.nii.gz"
    orthogonal = np.linalg.qr(OBLIQUE[:3, :3])[0] * (0.7, 1.1, 2.5)
    image = nib.Nifti1Image(noise(4, 5, 6, dtype="i2"), nib.affines.from_matvec(orthogonal, [1, 2, 3]))
    image.header.set_slope_inter(0.25, -1000)
    nib.save(image, path)

    scan, reference = read_scan([path]), sitk.ReadImage(str(path))
    np.testing.assert_allclose(scan.image[0], sitk.GetArrayFromImage(reference).T, rtol=1e-6)
    for index in [(0, 0, 0), (3, 1, 5)]:
        lps = reference.TransformContinuousIndexToPhysicalPoint([float(i) for i in index])
        np.testing.assert_allclose(scan.affine @ [*index, 1], [-lps[0], -lps[1], lps[2], 1], atol=1e-4)
    np.testing.assert_allclose(scan.spacing, reference.GetSpacing(), rtol=1e-5)
    assert scan.unit == "mm"


def test_slope_of_the_file_is_applied_once(tmp_path):
    image = nib.Nifti1Image(np.arange(24, dtype="i2").reshape(2, 3, 4), np.eye(4))
    image.header.set_slope_inter(2, 5)
    nib.save(image, tmp_path / "x.nii")
    expected = np.arange(24).reshape(2, 3, 4) * 2 + 5
    np.testing.assert_array_equal(read_scan([tmp_path / "x.nii"]).image[0], expected)


def test_microns_are_turned_to_mm_as_simpleitk_does(tmp_path):
    image = nib.Nifti1Image(noise(4, 5, 6), np.diag([20, 30, 40, 1.0]))
    image.header.set_xyzt_units("micron")
    nib.save(image, tmp_path / "x.nii")
    scan = read_scan([tmp_path / "x.nii"])
    np.testing.assert_allclose(scan.spacing, sitk.ReadImage(str(tmp_path / "x.nii")).GetSpacing(), rtol=1e-6)
    write_mask(tmp_path / "m.nii", np.zeros((4, 5, 6), int), scan)
    np.testing.assert_array_equal(nib.load(tmp_path / "m.nii").affine, image.affine)


def test_rgb_voxels_are_three_channels(tmp_path):
    colours = np.zeros((4, 5, 6), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    for value, name in enumerate("RGB"):
        colours[name] = noise(4, 5, 6, dtype="u1") + value
    nib.save(nib.Nifti1Image(colours, OBLIQUE), tmp_path / "x.nii")
    scan = read_scan([tmp_path / "x.nii"])
    np.testing.assert_array_equal(scan.image, [colours[name] for name in "RGB"])
    write_mask(tmp_path / "m.nii", np.ones((4, 5, 6), int), scan)
    assert nib.load(tmp_path / "m.nii").get_data_dtype() == np.uint8


@pytest.mark.parametrize(("sform", "qform"), [(1, 0), (0, 1), (2, 1), (4, 3)])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_mask_keeps_affines_codes_and_units(tmp_path, sform, qform, suffix):
    rotation = np.linalg.qr(OBLIQUE[:3, :3])[0] * (0.7, 1.1, 2.5)
    path = save(
        tmp_path / "x.nii", noise(4, 5, 6, 2), nib.affines.from_matvec(rotation, [1, 2, 3]), sform=sform, qform=qform
    )
    mask = tmp_path / "new" / "folder" / f"m{suffix}"
    write_mask(mask, np.full((4, 5, 6), 4), read_scan([path]))

    before, after = nib.load(path), nib.load(mask)
    np.testing.assert_array_equal(before.affine, after.affine)
    for form in ("get_sform", "get_qform"):
        (old, old_code), (new, new_code) = (getattr(image, form)(coded=True) for image in (before, after))
        assert old_code == new_code
        assert (old is None and new is None) or (old == new).all()
    assert after.header.get_xyzt_units() == ("mm", "sec")
    np.testing.assert_allclose(after.header.get_zooms(), before.header.get_zooms()[:3])


@pytest.mark.parametrize(
    ("values", "dtype"), [([0, 1], "u1"), ([0, 255], "u1"), ([0, 256], "u2"), ([0, 70000], "u4"), ([-1, 255], "i2")]
)
def test_mask_has_the_smallest_type_and_no_scale(tmp_path, values, dtype):
    scan = read_scan([save(tmp_path / "x.nii", noise(2, 3, 4))])
    written = np.resize(values, (2, 3, 4)).astype(np.int32)
    write_mask(tmp_path / "m.nii", written, scan)
    raw = (tmp_path / "m.nii").read_bytes()
    assert nib.load(tmp_path / "m.nii").get_data_dtype() == dtype
    assert np.frombuffer(raw[112:120], "f4").tolist() == [1, 0]
    np.testing.assert_array_equal(np.frombuffer(raw[352:], dtype), written.ravel(order="F"))


def test_nifti2_stays_nifti2(tmp_path):
    nib.save(nib.Nifti2Image(noise(2, 3, 4), OBLIQUE), tmp_path / "x.nii")
    scan = read_scan([tmp_path / "x.nii"])
    write_mask(tmp_path / "m.nii", np.zeros((2, 3, 4), int), scan)
    assert isinstance(nib.load(tmp_path / "m.nii"), nib.Nifti2Image)


def test_header_of_a_vector_file_does_not_reach_its_mask(tmp_path):
    image = nib.Nifti1Image(noise(2, 3, 4, 1, 3), OBLIQUE)
    image.header.set_intent("vector")
    image.header["cal_max"] = 500
    nib.save(image, tmp_path / "x.nii")
    write_mask(tmp_path / "m.nii", np.zeros((2, 3, 4), int), read_scan([tmp_path / "x.nii"]))
    header = nib.load(tmp_path / "m.nii").header
    assert header.get_intent()[0] == "none"
    assert header["cal_max"] == 0


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_no_text_of_a_header_reaches_its_mask(tmp_path, kind):
    image = kind(noise(2, 3, 4), OBLIQUE)
    texts = [name for name in image.header.keys() if image.header[name].dtype.kind == "S"]  # noqa: SIM118 - no mapping
    texts = [name for name in texts if name not in ("magic", "regular")]
    assert {"descrip", "aux_file", "intent_name"} < set(texts)
    for name in texts:
        image.header[name] = b"Quirin"
    nib.save(image, tmp_path / "x.nii")
    write_mask(tmp_path / "m.nii", np.zeros((2, 3, 4), int), read_scan([tmp_path / "x.nii"]))
    assert b"Quirin" in (tmp_path / "x.nii").read_bytes()
    assert b"Quirin" not in (tmp_path / "m.nii").read_bytes()


def test_scan_made_in_memory_can_be_written(tmp_path):
    scan = Scan(noise(1, 2, 3, 4), OBLIQUE)
    write_mask(tmp_path / "m.nii.gz", np.ones((2, 3, 4), int), scan)
    np.testing.assert_allclose(nib.load(tmp_path / "m.nii.gz").affine, OBLIQUE)


def test_scan_travels_between_processes(tmp_path):
    scan = read_scan([save(tmp_path / "x.nii", noise(2, 3, 4))])
    write_mask(tmp_path / "m.nii", np.ones((2, 3, 4), int), pickle.loads(pickle.dumps(scan)))
    np.testing.assert_allclose(nib.load(tmp_path / "m.nii").affine, scan.affine)


def damaged(path, kind):
    whole = gzip.decompress(path.read_bytes())
    compressed = path.read_bytes()
    middle = len(compressed) // 2
    return {
        "half.nii.gz": compressed[:middle],
        "start.nii.gz": compressed[:60],
        "end.nii.gz": compressed[:-8],
        "flipped.nii.gz": compressed[:middle]
        + bytes(255 - b for b in compressed[middle : middle + 50])
        + compressed[middle + 50 :],
        "half.nii": whole[: len(whole) // 2],
        "header.nii": whole[:200],
        "text.nii.gz": b"hello world" * 100,
        "text.nii": b"hello world" * 100,
        "dim.nii": whole[:42] + (-5).to_bytes(2, "little", signed=True) + whole[44:],
        "type.nii": whole[:70] + (999).to_bytes(2, "little") + whole[72:],
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "half.nii.gz",
        "start.nii.gz",
        "end.nii.gz",
        "flipped.nii.gz",
        "half.nii",
        "header.nii",
        "text.nii.gz",
        "text.nii",
        "dim.nii",
        "type.nii",
    ],
)
def test_damaged_files_are_named(tmp_path, kind):
    values = np.random.default_rng(0).normal(size=(20, 20, 20))
    path = tmp_path / kind
    path.write_bytes(damaged(save(tmp_path / "x.nii.gz", values), kind))
    with pytest.raises(MedsegError, match=f"{kind}: no readable NIfTI file"):
        read_scan([path])


@pytest.mark.parametrize("name", ["packed.nii", "plain.nii.gz"])
def test_the_content_tells_whether_a_file_is_compressed(tmp_path, name):
    values = noise(2, 3, 4)
    content = save(tmp_path / "x.nii.gz", values).read_bytes()
    (tmp_path / name).write_bytes(content if name == "packed.nii" else gzip.decompress(content))
    scan = read_scan([tmp_path / name])
    np.testing.assert_array_equal(scan.image[0], values)
    write_mask(tmp_path / "masks" / name, np.ones((2, 3, 4), int), scan)
    np.testing.assert_array_equal(read_mask(tmp_path / "masks" / name, scan), np.ones((2, 3, 4)))


def test_an_absent_affine_is_assumed_with_a_word(tmp_path, caplog):
    image = nib.Nifti1Image(noise(2, 3, 4), None)
    image.header.set_zooms((2, 3, 4))
    nib.save(image, tmp_path / "absent.nii")
    scan = read_scan([tmp_path / "absent.nii"])
    assert scan.spacing == (2, 3, 4)
    assert "absent.nii: neither sform nor qform" in caplog.text
    write_mask(tmp_path / "mask.nii", np.ones((2, 3, 4), int), scan)
    np.testing.assert_array_equal(nib.load(tmp_path / "mask.nii").affine, nib.load(tmp_path / "absent.nii").affine)


def test_singular_affines_are_refused(tmp_path):
    singular = OBLIQUE.copy()
    singular[:, 2] = 0
    whole = save(tmp_path / "x.nii", noise(2, 3, 4)).read_bytes()
    (tmp_path / "zero.nii").write_bytes(whole[:280] + singular[:3].astype("<f4").tobytes() + whole[328:])
    with pytest.raises(MedsegError, match=r"zero.nii: the affine .* is singular"):
        read_scan([tmp_path / "zero.nii"])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (noise(2, 3, 4, dtype="c8"), "complex numbers"),
        (noise(2, 3, 4, 5, 6), r"shape \(2, 3, 4, 5, 6\) is no scan"),
        (noise(7), r"shape \(7,\) is no scan"),
    ],
)
def test_arrays_that_are_no_scan_are_refused(tmp_path, array, message):
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "x.nii")
    with pytest.raises(MedsegError, match=f"x.nii: .*{message}"):
        read_scan([tmp_path / "x.nii"])


def test_real_volume_and_mask_lie_on_one_grid(real_data):
    folder = real_data / "hippocampus"
    scan = read_scan([folder / "imagesTr/hippocampus_001.nii.gz"])
    mask = read_mask(folder / "labelsTr/hippocampus_001.nii.gz", scan)
    assert mask.shape == scan.shape
    assert np.unique(mask).tolist() == [0, 1, 2]
