"""Masks lie where their scans lie: a network that copies its input's threshold, over formats and geometries."""

import csv
import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from scipy import ndimage
from thresholding import TARGET, blob, write_checkpoint

import medseg
from medseg.errors import MedsegError
from medseg.jobs.predict import predict


@pytest.fixture
def run_predict(composed, tmp_path):
    def run(checkpoint, source, output=tmp_path / "masks", **changes):
        config = composed("predict", "device=cpu")
        config |= {"checkpoint": str(checkpoint), "input": str(source), "output": str(output), "trust": [TARGET]}
        return predict.run(config | changes)

    return run


TURN = np.array([[np.cos(0.3), -np.sin(0.3), 0], [np.sin(0.3), np.cos(0.3), 0], [0, 0, 1]])
SHEAR = np.array([[1, 0.2, 0], [0, 1, -0.3], [0.1, 0, 1]])
KINDS = {"straight": np.eye(3), "oblique": TURN, "sheared": TURN @ SHEAR}


def oriented(order, flips, spacing=(1.0, 1.3, 0.8), kind="straight"):
    """An affine whose voxel axis a runs along world axis order[a], backwards where flipped, more or less so."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, flip) in enumerate(zip(order, flips, strict=True)):
        affine[world, axis] = spacing[axis] * (-1 if flip else 1)
    affine[:3, :3] = KINDS[kind] @ affine[:3, :3]
    affine[:3, 3] = [-30, 12.5, 7]
    return affine


def assert_same_place(mask, body):
    """Equal but for one voxel at the borders."""
    structure = np.ones((3,) * body.ndim)
    assert not (mask & ~ndimage.binary_dilation(body, structure)).any()
    assert not (ndimage.binary_erosion(body, structure) & ~mask).any()
    assert mask.any()


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", list(itertools.product([False, True], repeat=3)))
@pytest.mark.parametrize(
    ("kind", "spacing"), [("straight", None), ("straight", [1.1, 0.9, 1.2]), ("oblique", None), ("sheared", None)]
)
def test_axis_orders_and_flips(run_predict, tmp_path, order, flips, kind, spacing):
    body = blob((18, 22, 26))
    affine = oriented(order, flips, kind=kind)
    nib.Nifti1Image(body.astype(np.float32), affine).to_filename(tmp_path / "scan.nii")
    run_predict(write_checkpoint(tmp_path / "c.ckpt", dims=3, spacing=spacing), tmp_path / "scan.nii")
    result = nib.load(tmp_path / "masks" / "scan.nii")
    assert result.shape == body.shape
    np.testing.assert_allclose(result.affine, affine, atol=1e-5)
    mask = np.asarray(result.dataobj) == 1
    if spacing is None:
        np.testing.assert_array_equal(mask, body)
    assert_same_place(mask, body)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("shape", [(18, 22, 26), (40, 33), (40, 33, 1)])
@pytest.mark.parametrize("scaled", [False, True])
def test_oblique_scans_scaled_integers_and_single_slices(run_predict, tmp_path, suffix, shape, scaled):
    body = blob([n for n in shape if n > 1]).reshape(shape)
    affine = oriented((2, 0, 1), (True, False, True), kind="oblique")
    image = (
        nib.Nifti1Image((body * 100).astype(np.int16), affine)
        if scaled
        else nib.Nifti1Image(body.astype(np.float32), affine)
    )
    image.set_sform(affine, code=2)
    image.set_qform(affine, code=1)
    if scaled:
        image.header.set_slope_inter(0.01, 0)
    nib.save(image, tmp_path / f"scan{suffix}")
    dims = 3 if shape[-1] > 1 and len(shape) == 3 else 2
    checkpoint = write_checkpoint(tmp_path / "c.ckpt", dims=dims, spacing=[1.0] * dims, tta=True)
    run_predict(checkpoint, tmp_path / f"scan{suffix}")
    result = nib.load(tmp_path / "masks" / f"scan{suffix}")
    assert result.shape == nib.load(tmp_path / f"scan{suffix}").shape
    np.testing.assert_allclose(result.affine, nib.load(tmp_path / f"scan{suffix}").affine, atol=1e-5)
    assert int(result.header["sform_code"]) == 2
    assert result.get_data_dtype() == np.uint8
    assert_same_place(np.squeeze(np.asarray(result.dataobj)) == 1, np.squeeze(body))


@pytest.mark.parametrize(
    ("name", "mask"), [("a.png", "a.png"), ("a.jpg", "a.png"), ("a.tif", "a.tif"), ("a.bmp", "a.bmp")]
)
def test_pictures(run_predict, tmp_path, name, mask):
    body = blob((40, 50))
    Image.fromarray((body * 255).astype(np.uint8)).save(
        tmp_path / name, **({"quality": 95} if name.endswith("jpg") else {})
    )
    run_predict(write_checkpoint(tmp_path / "c.ckpt", dims=2, values=(0, 255)), tmp_path / name, overlays=True)
    written = np.array(Image.open(tmp_path / "masks" / mask))
    assert written.shape == body.shape
    assert set(np.unique(written)) == {0, 255}
    if not name.endswith("jpg"):  # its ringing crosses the threshold of 0.5 grey levels
        np.testing.assert_array_equal(written == 255, body)
    assert (tmp_path / "masks" / "overlays" / "a.png").is_file()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("is_applied", [True, False])
def test_masks_overlay_pictures_as_viewers_show_them(run_predict, tmp_path, name, orientation, is_applied):
    body = blob((40, 50))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray((body * 255).astype(np.uint8))
    stored.save(tmp_path / name, exif=exif)
    reading = {"geometry": None, "reference": None, "orientation": None if is_applied else "ignore"}
    run_predict(write_checkpoint(tmp_path / "c.ckpt", dims=2, values=(0, 255)), tmp_path / name, dataset=reading)
    with Image.open(tmp_path / "masks" / name) as written:
        assert written.getexif().get(0x0112, 1) == 1
        mask = np.array(written)
    stored.getexif()[0x0112] = orientation
    shown = ImageOps.exif_transpose(stored) if is_applied else stored
    np.testing.assert_array_equal(mask, np.array(shown))


def test_a_folder_keeps_its_form_and_one_bad_scan_stops_no_other(run_predict, tmp_path):
    source = tmp_path / "scans (1)" / "Müller"
    source.mkdir(parents=True)
    body = blob((16, 18, 20))
    for name in ("a.nii.gz", "b.nii"):
        nib.save(nib.Nifti1Image(body.astype(np.float32), np.diag([2, 2, 2, 1])), source / name)
    (source / "broken.nii.gz").write_bytes((source / "a.nii.gz").read_bytes()[:300])
    (source / "notes.txt").write_text("not a scan")
    result = run_predict(write_checkpoint(tmp_path / "c.ckpt", dims=3), source.parent)
    assert result["status"] == "some_failed"
    assert "broken" in result["reason"]
    output = tmp_path / "masks" / "Müller"
    assert sorted(path.name for path in output.iterdir()) == ["a.nii.gz", "b.nii"]
    with (tmp_path / "masks" / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = {Path(row["case"]).name: row for row in csv.DictReader(file)}
    assert rows["a"]["status"] == "done"
    assert int(rows["a"]["thing_voxels"]) == body.sum()
    assert float(rows["a"]["thing_ml"]) == pytest.approx(body.sum() * 8 / 1000)
    assert rows["broken"]["status"] == "failed"
    assert "broken.nii.gz" in rows["broken"]["error"]


def test_a_file_a_channel_and_a_case_that_lacks_one(run_predict, tmp_path):
    body = blob((16, 18, 20))
    source = tmp_path / "scans"
    source.mkdir()
    for name in ("p1_t1", "p1_t2", "p2_t1"):
        nib.save(nib.Nifti1Image(body.astype(np.float32), np.eye(4)), source / f"{name}.nii.gz")
    checkpoint = write_checkpoint(tmp_path / "c.ckpt", dims=3, channels=2, endings=[["_t1"], ["_t2"]])
    result = run_predict(checkpoint, source)
    assert result["status"] == "some_failed"
    assert "p2 has no file ending in _t2" in result["reason"]
    shown = [path.name for path in (tmp_path / "masks").iterdir() if not path.name.startswith(".")]
    assert sorted(shown) == ["p1.nii.gz", "predictions.csv"]
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "masks" / "p1.nii.gz").dataobj) == 1, body)


def write_channels(folder, affines):
    """Write the same body once a channel, on grids of its own around the world's origin; return it on the last."""
    folder.mkdir()
    for name, affine in affines.items():
        affine[:3, 3] = -affine[:3, :3] @ np.full(3, 14.5)
        mm = nib.affines.apply_affine(affine, np.moveaxis(np.indices((30, 30, 30)), 0, -1))
        body = np.linalg.norm(mm / [6, 8, 10] - [0.2, 0, 0.1], axis=-1) < 1
        body |= (np.abs(mm - [-5, -6, 6]) < 2.5).all(-1)
        nib.Nifti1Image(body.astype(np.float32), affine).to_filename(folder / f"p1_{name}.nii.gz")
    return body


@pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
@pytest.mark.parametrize("flips", [(False, False, True), (True, False, True), (True, True, True)])
def test_channels_in_different_orientations(run_predict, tmp_path, order, flips):
    affines = {"t1": oriented((1, 2, 0), (False, True, False), (1, 1, 1)), "t2": oriented(order, flips, (1, 1, 1))}
    body = write_channels(tmp_path / "scans", affines)
    checkpoint = write_checkpoint(
        tmp_path / "c.ckpt", dims=3, channels=2, endings=[["_t1"], ["_t2"]], reading=("resample", 1)
    )
    run_predict(checkpoint, tmp_path / "scans")
    result = nib.load(tmp_path / "masks" / "p1.nii.gz")
    np.testing.assert_allclose(result.affine, affines["t2"], atol=1e-5)
    np.testing.assert_array_equal(np.asarray(result.dataobj), body)  # of the first channel, on the grid of the second


@pytest.mark.parametrize(("kind", "spacing"), [("oblique", (1.2, 0.9, 1)), ("sheared", (0.9, 1.1, 1.2))])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_channels_on_oblique_and_sheared_grids(run_predict, tmp_path, kind, spacing, order):
    affines = {"t1": oriented(order, (True, False, True), spacing, kind), "t2": oriented((0, 1, 2), [False] * 3)}
    body = write_channels(tmp_path / "scans", affines)
    names = {"dims": 3, "channels": 2, "endings": [["_t1"], ["_t2"]]}
    run_predict(write_checkpoint(tmp_path / "c.ckpt", **names, reading=("resample", 1)), tmp_path / "scans")
    mask = np.asarray(nib.load(tmp_path / "masks" / "p1.nii.gz").dataobj) == 1
    assert_same_place(mask, body)
    assert 2 * (mask & body).sum() / (mask.sum() + body.sum()) > 0.95
    with pytest.raises(MedsegError, match=r"p1_t2.nii.gz: its affine"):
        run_predict(write_checkpoint(tmp_path / "c.ckpt", **names), tmp_path / "scans")


def test_colliding_names_are_refused_before_anything_is_written(run_predict, tmp_path):
    source = tmp_path / "scans"
    source.mkdir()
    for name in ("a.png", "a.jpg"):
        Image.fromarray((blob((20, 20)) * 255).astype(np.uint8)).save(source / name)
    with pytest.raises(MedsegError, match=r"a\.jpg and .*a\.png differ in their suffix only"):
        run_predict(write_checkpoint(tmp_path / "c.ckpt", dims=2), source)
    assert not (tmp_path / "masks").exists()


def test_a_scan_is_never_overwritten(run_predict, tmp_path):
    path = tmp_path / "scan.nii"
    nib.save(nib.Nifti1Image(blob((16, 16, 16)).astype(np.float32), np.eye(4)), path)
    before = path.read_bytes()
    with pytest.raises(MedsegError, match="overwrite"):
        run_predict(write_checkpoint(tmp_path / "c.ckpt", dims=3), path, tmp_path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "empty|0 bytes|zero"), (b"no checkpoint at all", "not a checkpoint"), (None, "no such file")],
)
def test_a_checkpoint_that_is_none(run_predict, tmp_path, content, says):
    if content is not None:
        (tmp_path / "c.ckpt").write_bytes(content)
    with pytest.raises(MedsegError, match=rf"(?i)c\.ckpt.*({says}|not a checkpoint)"):
        run_predict(tmp_path / "c.ckpt", tmp_path)
    assert not (tmp_path / "masks").exists()


def test_a_pickle_bomb_is_not_run(run_predict, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "boom",))

    torch.save({"state_dict": {}, "medseg": Bomb()}, tmp_path / "c.ckpt")
    with pytest.raises(MedsegError, match="not a checkpoint that can be loaded safely"):
        run_predict(tmp_path / "c.ckpt", tmp_path)
    assert not (tmp_path / "boom").exists()


def test_code_that_is_not_trusted_is_not_built(run_predict, tmp_path):
    nib.save(nib.Nifti1Image(blob((16, 16, 16)).astype(np.float32), np.eye(4)), tmp_path / "scan.nii")
    with pytest.raises(MedsegError, match=r"thresholding\.Threshold(.|\n)*trust="):
        run_predict(write_checkpoint(tmp_path / "c.ckpt", dims=3), tmp_path / "scan.nii", trust=[])


def test_folders_without_scans_and_outputs_that_cannot_be(run_predict, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "c.ckpt", dims=3)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MedsegError, match="no scans"):
        run_predict(checkpoint, tmp_path / "empty")
    with pytest.raises(MedsegError, match="no such file or folder"):
        run_predict(checkpoint, tmp_path / "nowhere")
    nib.save(nib.Nifti1Image(blob((16, 16, 16)).astype(np.float32), np.eye(4)), tmp_path / "scan.nii")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MedsegError, match=r"output="):
        run_predict(checkpoint, tmp_path / "scan.nii", tmp_path / "file" / "masks")


def test_a_scan_of_another_kind_is_refused_in_words(run_predict, tmp_path):
    Image.fromarray(np.zeros((20, 20, 3), np.uint8) + np.arange(20, dtype=np.uint8)[:, None, None]).save(
        tmp_path / "a.png"
    )
    with pytest.raises(MedsegError, match=r"2D with 3 channel\(s\).*takes 3D images with 1"):
        run_predict(write_checkpoint(tmp_path / "c.ckpt", dims=3), tmp_path / "a.png")


def test_the_python_use(tmp_path):
    body = blob((16, 18, 20))
    nib.save(nib.Nifti1Image(body.astype(np.float32), np.diag([2, 2, 2, 1])), tmp_path / "scan.nii.gz")
    checkpoint = write_checkpoint(tmp_path / "c.ckpt", dims=3, values=(0, 7))
    predictor = medseg.Predictor.load(checkpoint, trust=[TARGET], device="cpu", inference={"tta": True})
    mask = predictor(tmp_path / "scan.nii.gz")
    np.testing.assert_array_equal(mask.values, body * 7)
    assert mask.ml == {"thing": pytest.approx(body.sum() * 8 / 1000)}
    mask.save(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj), body * 7)


def test_a_threshold_other_than_a_half(tmp_path):
    ramp = np.linspace(0, 1, 40, dtype=np.float32)[:, None].repeat(40, 1)
    nib.save(nib.Nifti1Image(ramp, np.eye(4)), tmp_path / "scan.nii")
    checkpoint = write_checkpoint(tmp_path / "c.ckpt", dims=2)
    sizes = [
        medseg.Predictor.load(checkpoint, trust=[TARGET], device="cpu", inference={"threshold": t})(
            tmp_path / "scan.nii"
        ).voxels["thing"]
        for t in (0.1, 0.5, 0.9)
    ]
    # softmax(±20 (x − 0.5)) exceeds t where x > 0.5 + ln(t / (1 − t)) / 40
    expected = [40 * int((ramp[:, 0] > 0.5 + np.log(t / (1 - t)) / 40).sum()) for t in (0.1, 0.5, 0.9)]
    assert sizes == expected


def test_masks_with_named_classes_and_surfaces(run_predict, tmp_path):
    import SimpleITK as sitk

    body = blob((18, 22, 26))
    affine = oriented((1, 0, 2), (True, False, True), kind="oblique")
    (tmp_path / "scans" / "p 1").mkdir(parents=True)
    nib.Nifti1Image(body.astype(np.float32), affine).to_filename(tmp_path / "scans" / "p 1" / "a.nii.gz")
    checkpoint = write_checkpoint(tmp_path / "c.ckpt", dims=3)
    code = {"value": "1", "scheme": "SCT", "meaning": "Body"}
    options = {"format": "seg.nrrd", "meshes": True, "codes": {"thing": code}}
    assert run_predict(checkpoint, tmp_path / "scans", **options)["status"] == "done"
    path = tmp_path / "masks" / "p 1" / "a.seg.nrrd"
    mask = sitk.ReadImage(path)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask).T, body)
    np.testing.assert_allclose(mask.GetOrigin(), affine[:3, 3] * [-1, -1, 1])
    assert mask.GetMetaData("Segment0_Name") == "thing"
    assert "SCT^1^Body" in mask.GetMetaData("Segment0_Tags")
    surface = tmp_path / "masks" / "meshes" / "p 1" / "a" / "thing.stl"
    written = [file.read_bytes() for file in (path, surface)]
    path.unlink()
    run_predict(checkpoint, tmp_path / "scans", **options)
    assert [file.read_bytes() for file in (path, surface)] == written
    run_predict(checkpoint, tmp_path / "scans", **options | {"format": "nifti", "meshes": False})
    assert (tmp_path / "masks" / "p 1" / "a.nii.gz").is_file()
    with pytest.raises(MedsegError, match=r"format=rtstruct refers to a DICOM series, which .*a\.nii\.gz is not"):
        run_predict(checkpoint, tmp_path / "scans", format="rtstruct")
