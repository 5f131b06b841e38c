"""The user's own transforms of single samples, as data workers are sent them."""

import pickle
from collections.abc import Callable, Sequence
from traceback import extract_tb
from typing import Any, cast

from monai.transforms.compose import Compose
from monai.transforms.transform import apply_transform
from monai.transforms.utility.dictionary import ToTensord

from medseg.augmentation.random import seeded
from medseg.errors import MedsegError, first_line


class SampleTransforms:
    """Applies MONAI dictionary transforms (keys "image" and "label"); draws depend on (seed, patch number) alone.

    Data workers are sent a pickle of it, so it refers to nothing else of the training.
    """

    def __init__(self, transforms: Sequence[Callable[[Any], Any]], seed: int) -> None:
        self.seed = seed
        # Plain tensors in the end: a MetaTensor would travel into metrics and from there, pickled, into checkpoints.
        self.composed = Compose([*transforms, ToTensord(["image", "label"], track_meta=False)]).set_random_state(seed)

    def __call__(self, sample: dict[str, Any], number: int) -> dict[str, Any]:
        """Transform the sample of patch ``number``.

        Raises:
            MedsegError: a transform has failed; with its name, the error and the line of code that raised it.
        """
        self.composed.set_random_state(seeded(self.seed, 3, number).initial_seed() & 0xFFFFFFFF)
        result: Any = sample
        for transform in self.composed.transforms:
            try:
                result = apply_transform(transform, result, lazy=False)
            except Exception as error:  # of any kind, as the code is the user's
                cause: BaseException = error
                while cause.__cause__:  # MONAI's own errors only say which transform it was
                    cause = cause.__cause__
                name, kind = f"{type(transform).__module__}.{type(transform).__qualname__}", type(cause).__name__
                place = extract_tb(cause.__traceback__)[-1]
                raise MedsegError(
                    f"augment.transforms: {name}: {kind}: {first_line(cause)} ({place.filename}, line {place.lineno})."
                    " Mend this transform, or leave it out."
                ) from error
        return cast(dict[str, Any], result)

    def check_picklable(self) -> None:
        """Raise for transforms that cannot be sent to data workers.

        Raises:
            MedsegError: with the transform and what cannot be pickled of it.
        """
        for transform in self.composed.transforms:
            try:
                if b"__main__" in pickle.dumps(transform):  # which workers do not have
                    raise TypeError("it is defined in the main script or a notebook")
            except (pickle.PicklingError, AttributeError, TypeError) as error:
                raise MedsegError(
                    f"augment.transforms: {type(transform).__name__} cannot be sent to the processes that load data"
                    f" ({first_line(error)}). Let it refer to functions and classes at the top level of a module, not"
                    " to lambdas or local ones, or load data without further processes: trainer.workers=0."
                ) from error
