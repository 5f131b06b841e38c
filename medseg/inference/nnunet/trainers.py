"""nnU-Net's trainers, which are classes: those known to leave the network as its plan has it, or changing its norm."""

from collections.abc import Collection
from pathlib import Path

from medseg.errors import MedsegError

BATCH_NORM = "nnUNetTrainerBN"
"""The one that replaces the plan's norm by a batch norm."""

VARIANTS = """
Adam Adam1en3 Adam3en4 Adan Adan1en1 Adan1en3 Adan3en4 AdanCosAnneal BN Benchmark_5epochs
Benchmark_5epochs_noDataLoading CELoss CELoss_5epochs CosAnneal DA5 DA5Segord0 DA5_10epochs DA5ord0
DiceCELoss_noSmooth DiceLoss DiceTopK10Loss NoDA NoDeepSupervision NoMirroring Topk10Loss Topk10LossLS01 VanillaAdam
VanillaAdam1en3 VanillaAdam3en4 _100epochs _10epochs _1epoch _2000epochs _2000epochs_NoMirroring _20epochs
_250epochs _250epochs_NoMirroring _4000epochs _4000epochs_NoMirroring _500epochs _50epochs _5epochs _750epochs
_8000epochs _8000epochs_NoMirroring _DASegOrd0 _DASegOrd0_NoMirroring _noDummy2DDA _onlyMirror01
_onlyMirror01_1500ep _onlyMirror01_DA5 _onlyMirror01_DASegOrd0 _probabilisticOversampling
_probabilisticOversampling_010 _probabilisticOversampling_033 _warmup
"""
KNOWN = {"nnUNetTrainer", "nnUNet_Trainer_BS8", *("nnUNetTrainer" + variant for variant in VARIANTS.split())}
"""Those of nnU-Net 2.8.1, without those of its transformers."""


def check_trainer(name: str, path: Path, trust: Collection[str]) -> None:
    """Refuse a trainer of which nobody knows whether it changes the network, unless it is trusted."""
    if name not in KNOWN and name not in trust:
        raise MedsegError(
            f"{path}: trained by {name}, which is none of nnU-Net's trainers for its U-Nets. A trainer can change what"
            " the network computes, and its class is not here to be read. If you know that this one changes neither"
            f" layers nor activations nor preprocessing, say so: trust=[{name}]."
        )
