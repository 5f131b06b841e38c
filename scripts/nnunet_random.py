"""Writes a folder as nnU-Net v2 leaves its trained models, with random weights; runs in the peers' environment.

    python nnunet_random.py TEMPLATE FOLDER CLASSES

TEMPLATE is the folder of a trained 3D model, whose plans are changed: spacing 1.5 mm, windows of 96x96x96, five stages
from 16 channels on, as the network of ``benchmark_prediction.py``.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

STAGES = 5
BASE = 16


def main(template: Path, folder: Path, classes: int) -> None:
    """Write plans, description and checkpoint."""
    (folder / "fold_0").mkdir(parents=True, exist_ok=True)
    shutil.copy(template / "dataset_fingerprint.json", folder)
    plans = json.loads((template / "plans.json").read_text())
    configuration = plans["configurations"]["3d_fullres"]
    configuration |= {"patch_size": [96] * 3, "spacing": [1.5] * 3, "batch_size": 2}
    arguments = configuration["architecture"]["arch_kwargs"]
    arguments |= {
        "n_stages": STAGES,
        "features_per_stage": [BASE * 2**level for level in range(STAGES)],
        "kernel_sizes": [[3] * 3] * STAGES,
        "strides": [[1] * 3, *[[2] * 3] * (STAGES - 1)],
        "n_conv_per_stage": [2] * STAGES,
        "n_conv_per_stage_decoder": [2] * (STAGES - 1),
    }
    labels = {"background": 0, **{f"class {index}": index for index in range(1, classes)}}
    dataset = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    torch.manual_seed(0)
    kind, needed = (
        configuration["architecture"]["network_class_name"],
        configuration["architecture"]["_kw_requires_import"],
    )
    network = get_network_from_plans(kind, arguments, needed, 1, classes, deep_supervision=True)
    content = {
        "network_weights": network.state_dict(),
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1, 2),
        "init_args": {"plans": plans, "configuration": "3d_fullres", "fold": 0, "dataset_json": dataset},
    }
    torch.save(content, folder / "fold_0" / "checkpoint_final.pth")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
