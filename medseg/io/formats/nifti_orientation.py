"""What the header of a scan tells of how it was taken and converted, beside its grid."""

import hashlib

from medseg.io.case import Scan
from medseg.io.formats.nifti import NiftiLayout

FIELDS = (
    "descrip",
    "aux_file",
    "db_name",
    "intent_name",
    "dim_info",
    "slice_code",
    "slice_duration",
    "toffset",
    "xyzt_units",
    "qform_code",
    "sform_code",
)
"""Fields of a NIfTI header that the scanner or the converter filled in."""


def header_hash(scan: Scan) -> str:
    """Return a hash of what the header of a scan's (reference) file holds in ``FIELDS``; "" for other formats.

    The texts themselves may name the patient, and must not reach the cache.
    """
    if not isinstance(scan.layout, NiftiLayout):
        return ""
    header = scan.layout.header
    values = [(name, header[name].item()) for name in FIELDS if name in header.keys()]  # noqa: SIM118 - no mapping
    return hashlib.sha256(repr(values).encode()).hexdigest()
