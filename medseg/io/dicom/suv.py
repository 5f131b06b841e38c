"""PET in standardised uptake values by body weight (SUVbw, g/ml), as the vendor-neutral pseudo-code of QIBA has it.

SUVbw = activity concentration · body weight / dose, where activity and dose are decayed to the same time
(QIBA FDG-PET/CT Profile, appendix; https://qibawiki.rsna.org/index.php/Standardized_Uptake_Value_(SUV)).
"""

from datetime import datetime, timedelta
from typing import Any

from medseg.errors import MedsegError

PHILIPS_SUV = (0x7053, 0x1000)
"""Philips' own factor from stored counts to SUVbw."""


def suv_factor(dataset: Any, first_acquired: datetime | None, name: str) -> float:
    """Return what rescaled values of a PET series are multiplied by to be SUVbw.

    ``dataset`` is that of one slice, ``first_acquired`` when the first slice was acquired.

    Raises:
        MedsegError: SUVbw cannot be computed: a value is missing, or it is another unit or correction of decay.
    """
    units = str(dataset.get("Units", ""))
    if units == "GML" and dataset.get("SUVType", "BW") in ("BW", "", None):
        return 1.0
    if units == "CNTS" and PHILIPS_SUV in dataset and float(dataset[PHILIPS_SUV].value):
        return float(dataset[PHILIPS_SUV].value)
    if units != "BQML":
        raise refused(name, f"its units are {units or 'unknown'}, not BQML (or GML)")
    tracer: Any = next(iter(dataset.get("RadiopharmaceuticalInformationSequence") or []), {})
    dose = needed(tracer, "RadionuclideTotalDose", name)  # in Bq when it was injected
    correction = str(dataset.get("DecayCorrection", ""))
    if correction not in ("START", "ADMIN"):
        raise refused(name, f"its DecayCorrection is {correction or 'unknown'}, not START or ADMIN")
    if correction == "START":  # voxels are decayed to the start of the scan, and so must be the dose
        half_life = needed(tracer, "RadionuclideHalfLife", name)
        times = [time for time in (moment(dataset, "Series"), first_acquired) if time is not None]
        if not times:
            raise refused(name, "neither SeriesTime nor AcquisitionTime is there")
        # a series made later, by processing, was decayed to the time of its acquisition
        start = min(times)
        if full := tracer.get("RadiopharmaceuticalStartDateTime"):
            injected = parsed(str(full))
        elif hour := tracer.get("RadiopharmaceuticalStartTime"):
            # where only the hour is known, the injection was at most a day before the scan
            injected = parsed(f"{start:%Y%m%d}{hour}")
            injected -= timedelta(days=1) if injected > start else timedelta()
        else:
            raise refused(name, "RadiopharmaceuticalStartTime is missing")
        dose *= 2 ** (-(start - injected).total_seconds() / half_life)
    return 1000 * needed(dataset, "PatientWeight", name) / dose


def acquired(dataset: Any) -> datetime | None:
    """Return when a slice was acquired, None where this is not recorded."""
    if full := dataset.get("AcquisitionDateTime"):
        return parsed(str(full))
    return moment(dataset, "Acquisition") or moment(dataset, "Series", "Acquisition")


def moment(dataset: Any, date: str, time: str | None = None) -> datetime | None:
    """Return the time of ``<date>Date`` and ``<time>Time``; None where one is missing."""
    day, hour = dataset.get(f"{date}Date"), dataset.get(f"{time or date}Time")
    return parsed(f"{day}{hour}") if day and hour else None


def parsed(text: str) -> datetime:
    """Read DICOM's ``YYYYMMDDHHMMSS.FFFFFF&ZZXX``, without the zone, in which all times of a file are.

    >>> parsed("20200131120500.25"), parsed("202001311205")
    (datetime.datetime(2020, 1, 31, 12, 5, 0, 250000), datetime.datetime(2020, 1, 31, 12, 5))
    """
    whole, _, fraction = text.partition("+")[0].partition("-")[0].strip().partition(".")
    return datetime.strptime(whole.ljust(14, "0")[:14], "%Y%m%d%H%M%S") + timedelta(seconds=float(f"0.{fraction or 0}"))


def needed(dataset: Any, keyword: str, name: str) -> float:
    """Return a positive number that SUVbw needs."""
    value = dataset.get(keyword)
    if not value or float(value) <= 0:
        raise refused(name, f"{keyword} is missing or 0")
    return float(value)


def refused(name: str, reason: str) -> MedsegError:
    """Return the error of a PET series whose values would not compare with those of others."""
    return MedsegError(
        f"{name}: PET is read in SUV (body weight), but {reason}. Restore what anonymisation has removed, or convert"
        " the series to NIfTI to use the values as they are stored, in training and prediction alike."
    )
