"""The two usual ways to predict a large scan, all scores in memory, for ``benchmark_prediction.py``.

    python whole_volume.py plain|monai CHECKPOINT SCAN MASK

plain: medseg's own windows and resampling, first all scores on the network's grid, then all on the scan's. monai:
SlidingWindowInferer, then Invertd of orientation and spacing, as MONAI's tutorials do.
"""

import sys
from pathlib import Path

import torch

from medseg.inference.predictor import Mask, Predictor
from medseg.io.case import Scan
from medseg.system.device import autocast


def plain(predictor: Predictor, path: Path) -> Mask:
    """Hold all scores on both grids."""
    prepared = predictor.prepare(path)
    [(image, geometry)], [group] = prepared.inputs, predictor.groups
    way, backwards = geometry.slab_axis
    with predictor.computing(prepared):
        rows = [row.clone() for row in group.scorer.blocks(group.networks, image, geometry)]
        scores = torch.cat(rows, 1 + way)
        del rows
        scores = scores.flip(1 + way) if backwards else scores
        [(_, native)] = group.scorer.slabs(geometry.in_one_block(scores), geometry, image.device, most=2**62)
        indices = native.argmax(0).to(torch.uint8).numpy()
    return Mask(prepared.scan, indices, predictor.label_map)


def monai(predictor: Predictor, path: Path) -> Mask:
    """Do it with MONAI's transforms and inferer."""
    from monai import transforms
    from monai.inferers import SlidingWindowInferer

    [group] = predictor.groups
    preprocess = transforms.Compose(
        [
            transforms.LoadImaged("image", ensure_channel_first=True),
            transforms.Orientationd("image", axcodes="RAS"),
            transforms.Spacingd("image", pixdim=(1.5, 1.5, 1.5), mode="bilinear"),
            transforms.NormalizeIntensityd("image"),
        ]
    )
    inverse = transforms.Invertd("pred", preprocess, orig_keys="image", nearest_interp=False, to_tensor=True)
    inferer = SlidingWindowInferer(group.scorer.patch_size, sw_batch_size=4, overlap=0.5, mode="gaussian")
    data = preprocess({"image": str(path)})
    with torch.inference_mode(), autocast(predictor.device, predictor.precision):
        data["pred"] = inferer(data["image"][None], group.models[0].network)[0].float()
    labels = inverse(data)["pred"].argmax(0).to(torch.uint8).numpy()
    scan = predictor_scan(path)
    return Mask(scan, labels, predictor.label_map)


def predictor_scan(path: Path) -> Scan:
    """Read the scan again, for the form of its mask."""
    from medseg.io.case import Case
    from medseg.io.files.read import read_case

    return read_case(Case("", "", (path,)))


def main() -> None:
    """Predict one scan."""
    way, checkpoint, scan, mask = sys.argv[1:]
    predictor = Predictor.load(checkpoint, device="cpu")
    {"plain": plain, "monai": monai}[way](predictor, Path(scan)).save(mask)


if __name__ == "__main__":
    main()
