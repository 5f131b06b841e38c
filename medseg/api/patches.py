"""Training patches for a training loop of one's own."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from medseg.api.data import Dataset
from medseg.api.runs import settings_with, shown_log
from medseg.augmentation.batch import Augmentation, augmented
from medseg.augmentation.random import random_numbers
from medseg.cli.keywords import config_of
from medseg.config.check import planned, read_settings
from medseg.config.instantiate import own_targets
from medseg.config.schema import typed
from medseg.config.settings import TrainingPlan, TrainSettings
from medseg.errors import MedsegError
from medseg.io.datasets import dataset as datasets
from medseg.io.datasets.splits import Split
from medseg.io.labels import LabelMap
from medseg.io.limits import Limit
from medseg.jobs.train.setup import cache_of, split_of
from medseg.models.slices import context_in_volume, without_context
from medseg.preprocessing.cache import cached_cases
from medseg.preprocessing.cache_files import in_use
from medseg.preprocessing.planning.plan import make_plan
from medseg.preprocessing.preprocessor import Preprocessor
from medseg.preprocessing.quality.check_dataset import check_dataset
from medseg.system.device import pick_device
from medseg.system.terminal import with_progress_bar
from medseg.training.assembly import make_augmentations, make_data
from medseg.training.data.datamodule import SegmentationData


class Patches:
    """Batches of training patches, on ``device``: each iteration is the next epoch of ``len(patches)`` batches.

    A batch holds ``image`` float32 (B, C, *patch), ``label`` int64 (B, 1, *patch), class indices with 255 where the
    class is unknown, and ``index`` int64 (B,), the number of the case in ``cases``. What comes out depends on the seed
    and the number of the epoch alone.

    Attributes:
        plan: what was decided from the data, by the places of the config: ``plan["plan"]["patch_size"]``,
            ``plan["preprocessing"]["spacing"]`` and so on.
        cases: ids of the cases that patches are of.
        split: ids of the cases of all subsets: ``train``, ``val``, ``test``.
        label_map: the classes.
        device: where the batches lie.

    >>> phantom = medseg.open_dataset("phantom", dims=2, cases=10, size=64)
    >>> patches = medseg.patches(phantom, trainer={"steps_per_epoch": 2, "accelerator": "cpu"}, plan={"batch_size": 4})
    >>> patches
    Patches(2 batches, batch_size=4, patch_size=[64, 64], cases=6, device='cpu')
    >>> [(tuple(batch["image"].shape), batch["label"].dtype) for batch in patches]
    [((4, 1, 64, 64), torch.int64), ((4, 1, 64, 64), torch.int64)]
    """

    def __init__(
        self,
        data: SegmentationData,
        augmentations: Sequence[Augmentation],
        *,
        plan: dict[str, Any],
        context: Sequence[int],
        cases: Sequence[str],
        split: Split,
        label_map: LabelMap,
        device: torch.device,
    ) -> None:
        self.plan, self.cases, self.split, self.label_map = plan, list(cases), split, label_map
        self.device, self.augmentations, self.context, self.seed = device, augmentations, context, data.seed
        self.margin = [whole - inner for whole, inner in zip(data.patches.context, context, strict=True)]
        self.loader = data.train_dataloader(device)
        self.epoch = 0
        """The epoch that comes next."""

    def __repr__(self) -> str:
        """Describe the batches."""
        own = self.plan["plan"]
        sizes = f"batch_size={own['batch_size']}, patch_size={own['patch_size']}"
        return f"Patches({len(self)} batches, {sizes}, cases={len(self.cases)}, device='{self.device}')"

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        self.loader.numbers.set_epoch(epoch)
        for number, batch in enumerate(self.loader, epoch * len(self)):
            random = random_numbers(len(batch["image"]), 0, self.seed, 2, number)
            image, label = augmented(batch["image"], batch["label"], self.augmentations, random, self.margin)
            yield {
                "image": image,
                "label": without_context(label, self.context).long(),
                "index": batch["index"].clone(),
            }


def patches(
    dataset: str | Dataset,
    *,
    subset: Literal["train", "val", "all"] = "train",
    config_dir: str | Path | None = None,
    **settings: Any,
) -> Patches:
    """Return batches of patches for a training loop of your own: planned, preprocessed, sampled and augmented.

    All is done as in ``train``: the split leaves out validation and test cases, the plan chooses spacing,
    normalisation, patch and batch from training and validation cases, preprocessed scans are kept in the cache.

    Args:
        dataset: what ``open_dataset`` returned, or a layout's name, with ``dataset.root`` among the settings.
        subset: the cases that patches are of.
        config_dir: a folder with config files and modules of your own, as ``--config-dir``.
        settings: those of ``train``, as ``plan={"patch_size": [64, 64], "batch_size": 8}``, ``augment="none"``,
            ``split={"test": 0}``, ``trainer={"steps_per_epoch": 100, "workers": 2}``, ``seed=1``.

    Raises:
        MedsegError: the data or the settings cannot be used.

    >>> import torch
    >>> phantom = medseg.open_dataset("phantom", dims=2, cases=10, size=64)
    >>> batches = medseg.patches(phantom, trainer={"steps_per_epoch": 2, "accelerator": "cpu"})
    >>> network = torch.nn.Conv2d(1, len(batches.label_map.names), 3, padding=1)
    >>> optimizer = torch.optim.AdamW(network.parameters())
    >>> for batch in batches:
    ...     loss = torch.nn.functional.cross_entropy(network(batch["image"]), batch["label"][:, 0], ignore_index=255)
    ...     optimizer.zero_grad()
    ...     loss.backward()
    ...     _ = optimizer.step()
    """
    with shown_log():
        config, _ = config_of("train", settings_with(dataset, settings), config_dir)
        assert config is not None
        given = read_settings(TrainSettings, config | {"trust": [*config["trust"], *own_targets(config)]})
        if given.first_stage.use:
            raise MedsegError(
                f"first_stage.use={given.first_stage.use}: these are patches of one stage; medseg.train has two."
            )
        Limit.max_gb = given.read.max_gb
        found = datasets.open_dataset(given.dataset, given.trust)
        label_map = datasets.label_map(found)
        split = split_of(given, found, label_map, None)
        subsets = {"train": split.train, "val": split.val, "all": tuple(case.id for case in found.cases)}
        if subset not in subsets:
            raise MedsegError(f"subset={subset!r}: give one of {', '.join(subsets)}.")
        names = subsets[subset]
        learned = names if subset == "all" else split.train + split.val  # as ``train`` plans, whichever are asked for
        cases, cache = datasets.by_id(found.cases, names), cache_of(given)
        device = pick_device(given.trainer.accelerator)
        with in_use(cache):
            seen_cases = datasets.by_id(found.cases, learned)
            fingerprint = check_dataset(seen_cases, label_map, watch=with_progress_bar, folder=cache)
            plan = make_plan(given, fingerprint, label_map, found.modality, device)
            resolved = planned(config, plan)
            filled, seen = typed(TrainSettings, resolved), typed(TrainingPlan, resolved["plan"])
            preprocessor = Preprocessor(**resolved["preprocessing"])
            files = cached_cases(cases, preprocessor, label_map, cache, with_progress_bar)
            data = make_data(replace(filled, trust=given.trust), seen, files, [])
            return Patches(
                data,
                make_augmentations(filled.augment, given.trust),
                plan={name: resolved[name] for name in plan if name in resolved},
                context=context_in_volume(seen),
                cases=names,
                split=split,
                label_map=label_map,
                device=device,
            )
