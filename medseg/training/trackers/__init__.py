"""Trackers of a training: what a run sends its scores, images and settings to. ``conf/logger`` names those shipped."""

from medseg.training.trackers.mlflow import MLFlow
from medseg.training.trackers.tensorboard import TensorBoard
from medseg.training.trackers.wandb import WandB

__all__ = ["MLFlow", "TensorBoard", "WandB"]
