"""Train, test and apply segmentation networks on medical scans, every choice a config value."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medseg.inference.predictor import Predictor as Predictor

__version__ = "0.1.0"
__all__ = ["Predictor", "__version__"]


def __dir__() -> list[str]:
    """List what the package offers, the Predictor too before it is imported."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Import the Predictor, and torch with it, only where it is asked for."""
    if name == "Predictor":
        from medseg.inference.predictor import Predictor

        return Predictor
    raise AttributeError(f"module 'medseg' has no attribute {name!r}")
