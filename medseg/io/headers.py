"""What the header of a scan tells of how it was taken and converted, beside its grid."""

from medseg.io.case import Scan
from medseg.io.nifti import NiftiLayout

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


def header_of(scan: Scan) -> tuple[str, ...]:
    """Return what the header of a scan's (reference) file holds in ``FIELDS``, as text; empty for other formats."""
    if not isinstance(scan.layout, NiftiLayout):
        return ()
    header = scan.layout.header
    return tuple(_text(header[name].item()) for name in FIELDS if name in header.keys())  # noqa: SIM118 - no mapping


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
