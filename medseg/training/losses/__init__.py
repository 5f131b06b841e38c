"""Losses, called ``loss(logits, target)``, and their weighted sum.

The target has one of two forms, told apart by its shape:

* exclusive classes: logits (B, K, *spatial) and int64 class indices (B, 1, *spatial), 0 being the background. The
  probabilities are the softmax over the classes.
* regions, which may overlap: logits (B, R, *spatial) and int64 (B, R, *spatial) of 1 inside and 0 outside. The
  probabilities are the sigmoid of each channel; there is no background channel.

In both, ``IGNORE`` stands where the reference is unknown, in regions even in one channel and not in another. Such
voxels give no loss and no gradient, and a loss over nothing known is 0. A loss is a scalar of float32 at least,
whatever the precision of the network: a half-precision sum over a patch stops growing long before it is complete.
"""

from medseg.training.losses.centerline import CenterlineDiceLoss
from medseg.training.losses.combination import OnProbabilities, WeightedSum
from medseg.training.losses.likelihood import CrossEntropyLoss, FocalLoss, TopKLoss
from medseg.training.losses.overlap import DiceLoss, GeneralizedDiceLoss, TverskyLoss

__all__ = [
    "CenterlineDiceLoss",
    "CrossEntropyLoss",
    "DiceLoss",
    "FocalLoss",
    "GeneralizedDiceLoss",
    "OnProbabilities",
    "TopKLoss",
    "TverskyLoss",
    "WeightedSum",
]
