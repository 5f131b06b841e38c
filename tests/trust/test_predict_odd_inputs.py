"""``medseg predict`` of good and bad files: the good are segmented, each bad one is an error of its own."""

import csv
import gzip
import os

import nibabel as nib
import numpy as np
import pydicom.pixels  # noqa: F401 - with the real decoders, before there is another
import pytest
import torch
from pydicom.uid import RLELossless
from scan_files import read_scan
from thresholding import TARGET, blob, write_checkpoint
from trust.corpus import dicom_file, metaimage, nifti_bytes, nrrd, with_fields

from medseg.cli import command_line
from medseg.errors import MedsegError
from medseg.inference.loading import read_models
from medseg.io.dicom.decoder_process import DECODERS
from medseg.io.limits import DEFAULT_MAX_GB, Limit
from medseg.training.transfer.sources import read_source

BAD = {
    "dims.mha": metaimage(NDims="99") + b"\0" * 500,
    "files.nhdr": nrrd(data_file="s%d.raw 1 1000000000 1"),
    "wide.mhd": metaimage(ElementDataFile="s%0999999999d.raw 1 5 1"),
    "unit.nii": with_fields(nifti_bytes(), xyzt_units=7),
    "metres.nii": with_fields(nifti_bytes(), xyzt_units=1),
    "large.nii.gz": gzip.compress(with_fields(nifti_bytes(), dim=[3, 32767, 32767, 32767, 1, 1, 1, 1])),
}


@pytest.fixture(autouse=True)
def default_limit():
    """Leave the process its limit."""
    yield
    Limit.max_gb = DEFAULT_MAX_GB


@pytest.fixture
def run(tmp_path, capsys):
    """Return ``run(**settings)``: the exit status of ``medseg predict``, and its errors by scan."""
    write_checkpoint(tmp_path / "c.ckpt", dims=3, spacing=[1.0, 1, 1])

    def predict(*settings):
        status = command_line.main(
            [
                *("predict", f"checkpoint={tmp_path / 'c.ckpt'}", f"input={tmp_path / 'scans'}", "device=cpu"),
                *(f"output={tmp_path / 'masks'}", f"trust=[{TARGET}]", *settings),
            ]
        )
        table = tmp_path / "masks" / "predictions.csv"
        rows = list(csv.DictReader(table.read_text("utf-8").splitlines())) if table.is_file() else []
        return status, {row["case"]: row["error"] for row in rows}, capsys.readouterr().err

    return predict


def test_each_bad_scan_is_its_own_error(tmp_path, run):
    scans = tmp_path / "scans"
    scans.mkdir()
    for name, content in BAD.items():
        (scans / name).write_bytes(content)
    os.mkfifo(scans / "pipe.nii")
    body = blob((20, 18, 16))
    nib.save(nib.Nifti1Image(body.astype(np.float32), np.eye(4)), scans / "good.nii.gz")
    (scans / "good.nii.gz").rename(scans / "good.nii")  # still packed
    status, errors, shown = run()
    assert status == 3
    assert "Traceback" not in shown
    assert {name for name, error in errors.items() if error} == {name.partition(".")[0] for name in BAD}
    assert "NDims is 99" in errors["dims"]
    assert "1000000000" in errors["files"]
    assert "code 7" in errors["unit"]
    assert "another unit" in errors["metres"]
    assert "read.max_gb" in errors["large"]
    np.testing.assert_array_equal(nib.load(tmp_path / "masks" / "good.nii").get_fdata(), body)


def test_a_decoder_that_crashes_is_one_scans_error(tmp_path, run, monkeypatch):
    packages, scans = tmp_path / "packages" / "rle", tmp_path / "scans"
    for folder in (packages, scans):
        folder.mkdir(parents=True)
    body = blob((20, 18, 16))
    dicom_file(scans / "a.dcm", syntax=RLELossless, PixelData=b"frame")
    nib.save(nib.Nifti1Image(body.astype(np.float32), np.eye(4)), scans / "b.nii.gz")
    (packages / "__init__.py").write_text(
        "import os\n__version__ = '2.2.0'\ndef decode_pixel_data(*args, **options): os.abort()\n"
        "encode_pixel_data = pack_bits = unpack_bits = None"
    )
    monkeypatch.syspath_prepend(packages.parent)
    DECODERS.stop()  # what another test began has the real decoders
    status, errors, shown = run()
    DECODERS.stop()
    assert (status, errors["b"]) == (3, "")
    assert "a.dcm: its pixels cannot be decoded (RLE Lossless): the decoder crashed (SIGABRT)" in errors["a"]
    assert "Traceback" not in shown
    np.testing.assert_array_equal(nib.load(tmp_path / "masks" / "b.nii.gz").get_fdata(), body)


def test_the_limit_is_a_setting(tmp_path, run):
    (tmp_path / "scans").mkdir()
    nib.save(nib.Nifti1Image(blob((40, 36, 32)).astype(np.float32), np.eye(4)), tmp_path / "scans" / "a.nii.gz")
    status, errors, _ = run("read.max_gb=0.00005")  # the network's windows take less
    assert (status, "read.max_gb=5e-05" in errors["a"]) == (1, True)
    status, errors, _ = run()
    assert (status, errors["a"]) == (0, "")


@pytest.mark.parametrize("scan", ["pipe.nii", "pipe.dcm", "pipe"])
def test_a_pipe_is_not_waited_for(tmp_path, run, scan):
    os.mkfifo(tmp_path / "scans")
    os.mkfifo(tmp_path / scan)
    status, _, shown = run(f"input={tmp_path / scan}")
    assert status == 1
    assert f"{scan}: this is a pipe" in shown
    with pytest.raises(MedsegError, match=r"this is a pipe|no DICOM image|unknown kind"):
        read_scan([tmp_path / scan])


@pytest.mark.parametrize("change", [{"blocks": 1_000_000}, {"base_channels": 100_000}, {"decoder_blocks": 10**9}])
@pytest.mark.parametrize("read", [read_models, read_source], ids=["predict", "finetune"])
def test_a_checkpoint_builds_no_more_than_its_weights(tmp_path, change, read):
    path = write_checkpoint(tmp_path / "c.ckpt", dims=3)
    content = torch.load(path, weights_only=True)
    model = {"_target_": "medseg.models.UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 2, "depth": 2}
    content["medseg"]["config"]["model"] = {**model, "base_channels": 8, **change}
    torch.save(content, path)
    with pytest.raises(MedsegError, match=r"(?s)c.ckpt.*(more than 0 weights|blocks)"):
        read(path)
