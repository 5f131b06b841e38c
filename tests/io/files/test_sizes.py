"""The size of a case by its headers is that of the image that is read."""

import numpy as np
import pytest
from PIL import Image
from scan_files import read_scan

from medseg.io.case import Case
from medseg.io.files.sizes import size_of


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        *((mode, "a.png") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
        *((mode, "a.tif") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F")),
        *((mode, "a.jpg") for mode in ("L", "RGB", "CMYK")),
    ],
)
def test_channels_of_pictures_are_those_that_are_read(tmp_path, mode, name):
    grey = Image.fromarray(np.arange(30, dtype=np.uint8).reshape(5, 6))
    (Image.fromarray(np.arange(30, dtype=np.uint16).reshape(5, 6)) if mode == "I;16" else grey.convert(mode)).save(
        tmp_path / name
    )
    scan = read_scan([tmp_path / name])
    size = size_of(Case("a", "a", (tmp_path / name,)))
    assert (size.voxels, size.channels) == (30, len(scan.image))
