"""What a training tells those who watch it from outside."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from medseg.system.running.progress_file import ProgressFile
from medseg.training.callbacks.checkpoints import Selection
from medseg.training.callbacks.progress import Progress, epoch_of


class ProgressTeller(Callback):
    """Writes the progress file of a training now and then; only the first process does."""

    def __init__(self, file: ProgressFile, progress: Progress, selection: Selection) -> None:
        self.file, self.progress, self.selection = file, progress, selection

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Tell that training begins."""
        self.tell(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Tell of a step."""
        if self.file.is_due("training"):
            self.tell(trainer)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Tell of a validated case."""
        if self.file.is_due("training"):
            self.tell(trainer)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Tell what came of it."""
        self.tell(trainer)

    def tell(self, trainer: Trainer) -> None:
        """Tell where the training is."""
        if trainer.is_global_zero:
            self.file.tell(
                "training",
                epoch=epoch_of(trainer),
                epochs=trainer.max_epochs if (trainer.max_epochs or 0) > 0 else None,
                score=self.selection.scores[-1] if self.selection.scores else None,
                best=self.selection.best_score,
                unlearned=self.selection.unlearned.names,
                seconds_left=self.progress.seconds_left,
                device=str(trainer.strategy.root_device),
            )
