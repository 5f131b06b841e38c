"""What a scan may be, besides files."""

import sys
from types import ModuleType

import pytest

from medseg.io.files.scans import scan_from_image


@pytest.mark.parametrize("package", ["monai.data.meta_tensor", "nibabel.spatialimages", "SimpleITK"])
def test_a_package_that_another_thread_is_just_importing_has_no_classes_yet(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, ModuleType(package))
    assert scan_from_image("scan.nii.gz") is None
