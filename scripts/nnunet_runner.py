"""Drives nnU-Net v2's own trainer, in the peers' environment; ``nnunet_peer.py`` starts it there.

    python nnunet_runner.py calibrate DATASET CONFIGURATION PLANS REPORT [--bf16]
    python nnunet_runner.py train     DATASET CONFIGURATION PLANS REPORT [--bf16] --epochs E --steps N --val-steps M
    python nnunet_runner.py steps     DATASET CONFIGURATION PLANS REPORT [--bf16]

Network, loss, optimizer, augmentation and data loaders are nnU-Net's default. ``--bf16`` is the one addition: nnU-Net
uses autocast on CUDA only, here the network runs in bfloat16 on a CPU too.
"""

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from nnunetv2.run.run_training import get_trainer_from_args
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from step_meter import StepMeter


def make_trainer(options: argparse.Namespace) -> nnUNetTrainer:
    """Return nnU-Net's default trainer on fold 0, initialised, with the schedule that was asked for."""
    torch.set_num_threads(os.cpu_count() or 1)  # as nnUNetv2_train does on a CPU
    torch.manual_seed(options.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainer = get_trainer_from_args(
        options.dataset, options.configuration, 0, plans_identifier=options.plans, device=device
    )
    trainer.num_epochs = options.epochs
    trainer.num_iterations_per_epoch = options.steps
    trainer.num_val_iterations_per_epoch = options.val_steps
    trainer.initialize()
    if options.bf16 and device.type == "cpu":
        trainer.network.forward = in_bf16(trainer.network.forward)
    return trainer


def in_bf16(forward):
    """Return a network's forward under bfloat16 autocast, its logits in float32 for the loss."""

    def autocast_forward(image):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = forward(image)
        return [output.float() for output in outputs] if isinstance(outputs, (list, tuple)) else outputs.float()

    return autocast_forward


def train(options: argparse.Namespace) -> dict:
    """Run nnU-Net's training from beginning to end."""
    trainer = make_trainer(options)
    began = time.perf_counter()
    trainer.run_training()
    return {"training_seconds": time.perf_counter() - began}


def calibrate(options: argparse.Namespace) -> dict:
    """Time single iterations of training and of validation as an undisturbed machine takes them.

    Other load only ever adds to an iteration, so the fastest counts, or what its CPU seconds come to on all cores where
    that is less: all in favour of nnU-Net. The first two iterations are left out.
    """
    trainer = make_trainer(options)
    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    train_steps = [timed(train_step, trainer) for _ in range(options.steps)]
    trainer.on_validation_epoch_start()
    with torch.no_grad():
        val_steps = [timed(validation_step, trainer) for _ in range(options.val_steps)]
    trainer.on_train_end()
    return {
        "train_step_seconds": undisturbed(train_steps[2:]),
        "val_step_seconds": undisturbed(val_steps[1:]),
        "train_wall_and_cpu_seconds": train_steps,
        "val_wall_and_cpu_seconds": val_steps,
    }


def undisturbed(steps: list[tuple[float, float]]) -> float:
    """Return the seconds of an iteration without other load, from (wall, CPU) seconds of several."""
    wall, cpu = np.min(steps, axis=0)
    return float(min(wall, cpu / torch.get_num_threads()))


def steps(options: argparse.Namespace) -> dict:
    """Train, a turn of steps at a time, as the benchmark of steps asks on stdin."""
    trainer = make_trainer(options)
    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    resident = next(trainer.dataloader_train)
    told = {"precision": "bf16" if options.bf16 else "fp16" if trainer.device.type == "cuda" else "fp32"}
    told["parameters"] = sum(parameter.numel() for parameter in trainer.network.parameters())
    told["patch"] = list(resident["data"].shape[2:])
    meter = StepMeter(lambda: trainer.train_step(resident), batch=trainer.batch_size, told=told)
    while True:
        train_step(trainer)
        meter.after_step()


def train_step(trainer: nnUNetTrainer) -> None:
    """Do what nnU-Net's epoch does once."""
    trainer.train_step(next(trainer.dataloader_train))


def validation_step(trainer: nnUNetTrainer) -> None:
    """Do what nnU-Net's validation does once."""
    trainer.validation_step(next(trainer.dataloader_val))


def timed(step, trainer: nnUNetTrainer) -> tuple[float, float]:
    """Return the wall and the CPU seconds of one step; the CPU seconds are those of this process alone."""
    began, cpu_began = time.perf_counter(), time.process_time()
    step(trainer)
    return time.perf_counter() - began, time.process_time() - cpu_began


JOBS = {"train": train, "calibrate": calibrate, "steps": steps}


def main() -> None:
    """Do what the command line says and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=list(JOBS))
    parser.add_argument("dataset", help="as in Dataset004_Hippocampus")
    parser.add_argument("configuration", choices=["2d", "3d_fullres"])
    parser.add_argument("plans")
    parser.add_argument("report", type=Path)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--val-steps", type=int, default=5)
    options = parser.parse_args()
    report = JOBS[options.job](options)
    report["max_rss_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    options.report.write_text(json.dumps(report, indent=1))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
