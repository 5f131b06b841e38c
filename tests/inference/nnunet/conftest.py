"""A trained model in nnU-Net's form, made without nnU-Net: its networks anew, with its names, and its files."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

CONV, UP, POOL = (
    {dims: getattr(nn, f"{kind}{dims}d") for dims in (2, 3)} for kind in ("Conv", "ConvTranspose", "AvgPool")
)


class ConvBlock(nn.Module):
    """nnU-Net's ConvDropoutNormReLU: every layer has two names."""

    def __init__(self, dims, inputs, outputs, kernel, stride, *, bias, norm, active=True):
        super().__init__()
        self.conv = CONV[dims](inputs, outputs, kernel, stride, [(k - 1) // 2 for k in kernel], bias=bias)
        self.norm = getattr(nn, f"{norm}{dims}d")(outputs, affine=True)
        layers = [self.conv, self.norm]
        if active:
            self.nonlin = nn.LeakyReLU()
            layers.append(self.nonlin)
        self.all_modules = nn.Sequential(*layers)

    def forward(self, x):
        return self.all_modules(x)


class Stacked(nn.Module):
    """nnU-Net's StackedConvBlocks."""

    def __init__(self, dims, count, inputs, outputs, kernel, stride, **options):
        super().__init__()
        first = ConvBlock(dims, inputs, outputs, kernel, stride, **options)
        rest = [ConvBlock(dims, outputs, outputs, kernel, 1, **options) for _ in range(count - 1)]
        self.convs = nn.Sequential(first, *rest)

    def forward(self, x):
        return self.convs(x)


class BasicBlock(nn.Module):
    """nnU-Net's BasicBlockD."""

    def __init__(self, dims, inputs, outputs, kernel, stride, **options):
        super().__init__()
        self.conv1 = ConvBlock(dims, inputs, outputs, kernel, stride, **options)
        self.conv2 = ConvBlock(dims, outputs, outputs, kernel, 1, active=False, **options)
        self.nonlin2 = nn.LeakyReLU()
        skip = [POOL[dims](stride, stride)] if any(s != 1 for s in stride) else []
        if inputs != outputs:
            one = [1] * dims
            skip.append(ConvBlock(dims, inputs, outputs, one, 1, active=False, **{**options, "bias": False}))
        self.skip = nn.Sequential(*skip) if skip else lambda x: x

    def forward(self, x):
        return self.nonlin2(self.conv2(self.conv1(x)) + self.skip(x))


class Blocks(nn.Module):
    """nnU-Net's StackedResidualBlocks."""

    def __init__(self, dims, count, inputs, outputs, kernel, stride, **options):
        super().__init__()
        one = [1] * dims
        first = BasicBlock(dims, inputs, outputs, kernel, stride, **options)
        rest = [BasicBlock(dims, outputs, outputs, kernel, one, **options) for _ in range(count - 1)]
        self.blocks = nn.Sequential(first, *rest)

    def forward(self, x):
        return self.blocks(x)


class Encoder(nn.Module):
    def __init__(self, dims, inputs, arguments, **options):
        super().__init__()
        features, kernels, strides = (arguments[key] for key in ("features_per_stage", "kernel_sizes", "strides"))
        residual = "n_blocks_per_stage" in arguments
        counts = arguments["n_blocks_per_stage" if residual else "n_conv_per_stage"]
        if residual:
            self.stem = Stacked(dims, 1, inputs, features[0], kernels[0], 1, **options)
            inputs = features[0]
        stages = []
        for count, before, after, kernel, stride in zip(
            counts, [inputs, *features], features, kernels, strides, strict=False
        ):
            stage = (Blocks if residual else Stacked)(dims, count, before, after, kernel, stride, **options)
            stages.append(stage if residual else nn.Sequential(stage))
        self.stages = nn.Sequential(*stages)

    def forward(self, x):
        x = self.stem(x) if hasattr(self, "stem") else x
        return [x := stage(x) for stage in self.stages]


class Decoder(nn.Module):
    def __init__(self, encoder, dims, outputs, arguments, *, bias, **options):
        super().__init__()
        self.encoder = encoder  # as in nnU-Net, whose decoder so has the encoder's weights, too
        features, kernels, strides = (arguments[key] for key in ("features_per_stage", "kernel_sizes", "strides"))
        upwards = list(pairwise(features[::-1]))
        self.transpconvs = nn.ModuleList(
            UP[dims](below, beside, stride, stride, bias=bias)
            for (below, beside), stride in zip(upwards, strides[:0:-1], strict=True)
        )
        self.stages = nn.ModuleList(
            Stacked(dims, count, 2 * beside, beside, kernel, 1, bias=bias, **options)
            for count, (_, beside), kernel in zip(
                arguments["n_conv_per_stage_decoder"], upwards, kernels[-2::-1], strict=True
            )
        )
        self.seg_layers = nn.ModuleList(CONV[dims](beside, outputs, 1) for _, beside in upwards)

    def forward(self, skips):
        x = skips[-1]
        for up, stage, skip in zip(self.transpconvs, self.stages, skips[-2::-1], strict=True):
            x = stage(torch.cat([up(x), skip], 1))
        return self.seg_layers[-1](x)


class Reference(nn.Module):
    """nnU-Net's PlainConvUNet or ResidualEncoderUNet, with weights drawn so that every layer and class matters."""

    def __init__(self, arguments, inputs, outputs, seed=0):
        super().__init__()
        dims = len(arguments["strides"][0])
        norm = arguments["norm_op"].rpartition(".")[2][:-2]
        options = {"bias": arguments["conv_bias"], "norm": norm}
        self.encoder = Encoder(dims, inputs, arguments, **options)
        self.decoder = Decoder(self.encoder, dims, outputs, arguments, **options)
        self.draw(torch.Generator().manual_seed(seed), inputs, dims)
        self.eval()

    def draw(self, generator, inputs, dims):
        """Draw the weights; each output has about mean 0 and deviation 1, or one would be everywhere."""
        for key, value in self.state_dict().items():
            if value.is_floating_point():
                drawn = 0.3 * torch.randn(value.shape, generator=generator)
                positive = key.endswith("running_var") or (value.ndim == 1 and key.endswith("weight"))
                value.copy_(drawn.abs() + 0.5 if positive else drawn)
        sample = self.eval()(torch.randn(1, inputs, *[8] * dims, generator=generator))[0].flatten(1)  # (K, n)
        head, std = self.decoder.seg_layers[-1], sample.std(1)
        head.weight.data /= std.view(-1, *[1] * (1 + dims))
        head.bias.data = (head.bias.data - sample.mean(1)) / std

    @torch.inference_mode()
    def forward(self, x):
        return self.decoder(self.encoder(x))


def architecture(dims=3, *, residual=False, norm="instancenorm.InstanceNorm", **changes):
    """nnU-Net's description of a small network; strides and kernels are not alike along all axes."""
    thin = [1] * (dims - 2)
    blocks = {"n_blocks_per_stage": [1, 2, 2]} if residual else {"n_conv_per_stage": [2, 1, 2]}
    arguments = {
        "n_stages": 3,
        "features_per_stage": [4, 7, 8],
        "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
        "kernel_sizes": [[*thin, 3, 3], [3] * dims, [3] * dims],
        "strides": [[1] * dims, [*thin, 2, 2], [2] * dims],
        **blocks,
        "n_conv_per_stage_decoder": [1, 2],
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.{norm}{dims}d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
        **changes,
    }
    kind = "ResidualEncoderUNet" if residual else "PlainConvUNet"
    return {"network_class_name": f"dynamic_network_architectures.architectures.unet.{kind}", "arch_kwargs": arguments}


def plans_of(architecture, *, patch, spacing, reader="SimpleITKIO", schemes=("ZScoreNormalization",), **changes):
    """The contents of plans.json with the configuration "3d_fullres"; ``changes`` are of the configuration."""
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    settings = {
        "preprocessor_name": "DefaultPreprocessor",
        "patch_size": list(patch),
        "spacing": list(spacing),
        "normalization_schemes": list(schemes),
        "use_mask_for_norm": [False] * len(schemes),
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
        "architecture": architecture,
        **changes,
    }
    return {
        "plans_name": "nnUNetPlans",
        "image_reader_writer": reader,
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "original_median_shape_after_transp": [1 if reader == "NaturalImage2DIO" else 20, 20, 20],
        "configurations": {"3d_fullres": settings},
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {"mean": 100.0, "std": 50.0, "percentile_00_5": 0.0, "percentile_99_5": 200.0}
        },
    }


def write_model(folder, plans, networks, *, labels=None, channels=("MRI",), trainer="nnUNetTrainer", **options):
    """Write a trained model: a fold for each network, with a log and an optimizer as in nnU-Net's checkpoints."""
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    dataset = {
        "channel_names": {str(place): name for place, name in enumerate(channels)},
        "labels": labels or {"background": 0, "anterior": 1, "posterior": 2},
        "file_ending": ".nii.gz",
        "numTraining": 1,
        **options.pop("dataset", {}),
    }
    (folder / "dataset.json").write_text(json.dumps(dataset))
    for place, network in enumerate(networks):
        fold = folder / f"fold_{place}"
        fold.mkdir()
        weights = network.state_dict()
        content = {
            "network_weights": weights,
            "optimizer_state": {"state": {}, "param_groups": [{"lr": 0.01, "params": [0]}]},
            "grad_scaler_state": None,
            "logging": {"mean_fg_dice": [np.float64(0.5)], "train_losses": [np.float32(0.1)], "lrs": [0.01]},
            "_best_ema": np.float64(0.5),
            "current_epoch": 2,
            "init_args": {"plans": plans, "configuration": "3d_fullres", "fold": place, "dataset_json": dataset},
            "trainer_name": trainer,
            "inference_allowed_mirroring_axes": options.get("mirror"),
        }
        torch.save(content, fold / options.get("file", "checkpoint_final.pth"))
    return folder


@pytest.fixture(scope="session")
def nnunet():
    """What makes trained models of nnU-Net."""

    class Maker:
        network, architecture, plans, write = Reference, staticmethod(architecture), plans_of, write_model

    Maker.plans, Maker.write = staticmethod(plans_of), staticmethod(write_model)
    return Maker
