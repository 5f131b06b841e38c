"""Modalities by the names that data sets give their channels."""

from collections.abc import Sequence

MODALITIES = {
    "mri": ("mri", "mr", "t1", "t2", "flair", "adc", "dwi", "swi", "pd"),
    "ct": ("ct", "cbct", "cta"),
    "xray": ("xray", "x-ray", "xr", "cr", "dx"),
    "ultrasound": ("ultrasound", "us"),
    "microscopy": ("microscopy",),
}
"""Names of channels as data sets write them, by modality; those of MRI's sequences may go on (``t1gd``)."""


def modalities_of(channels: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the modality of each channel by its name; None where one is unknown.

    >>> modalities_of(["FLAIR", "T1w"]), modalities_of(["CT", "dose"])
    (('mri', 'mri'), None)
    """
    found = [_modality_of(name.lower()) for name in channels or ()]
    known = tuple(name for name in found if name)
    return known if known and len(known) == len(found) else None


def _modality_of(channel: str) -> str | None:
    exact = (modality for modality, names in MODALITIES.items() if channel in names)
    sequence = "mri" if channel.startswith(("t1", "t2", "flair")) else None
    return next(exact, sequence)
