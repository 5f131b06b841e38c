"""What is in the files of wandb, by its own messages; skipped where it is not installed (``medseg[wandb]``)."""

import struct

import numpy as np
import pytest

from medseg.system.files import refuse_links
from medseg.training.trackers import WandB
from medseg.training.trackers.tracker import Trackers

pytest.importorskip("wandb", reason="needs pip install 'medseg[wandb]'")
pytestmark = pytest.mark.filterwarnings("ignore")

SETTINGS = {"dataset": {"name": "heart"}, "seed": 3}


def records(path):
    """The records of a file of wandb's: LevelDB's log format, in blocks of 32 KiB, behind a head of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, position, record = path.read_bytes(), 7, b""
    while position + 7 <= len(content):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)  # 1: whole; 2, 3, 4: first, middle, last
        record += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            yield Record.FromString(record)
            record = b""


def test_files_of_a_run_and_of_its_resumption(tmp_path):
    (tmp_path / "sweep.json").write_text("{}")
    run_dir = tmp_path / "0"
    run_dir.mkdir()
    for score in (0.5, 0.75):
        trackers = Trackers({"wandb": WandB(str(run_dir), "heart")})
        trackers.connect()
        trackers.begin(SETTINGS)
        trackers.log_metrics({"val/dice": score}, step=1)
        trackers.image("worst case", np.zeros((8, 8, 3), np.uint8), step=1)
        trackers.text("worst case", "a: Dice 0.5", step=1)
        trackers.finalize("success")
        (run_dir / "plan.json").write_text("{}")
        trackers.end({"best/test_dice": 0.25}, step=2, run_dir=run_dir)
        assert trackers.loggers  # none has failed
    files = [*run_dir.glob("wandb/offline-run-*/run-*.wandb")]
    assert len({file.name for file in files}) == 1  # one id
    refuse_links(run_dir, "a run that is resumed")
    for folder in (file.parent for file in files):
        assert (folder / "files" / "medseg-plan.json").is_file()
        assert [*folder.glob("files/media/images/worst case*.png")]
    kinds = [record for file in files for record in records(file)]
    run = next(record.run for record in kinds if record.HasField("run"))
    assert (run.project, run.run_group, run.display_name) == ("heart", tmp_path.name, "0")
    history = {item.key or ".".join(item.nested_key) for record in kinds for item in record.history.item}
    assert {"val/dice", "best/test_dice", "step"} <= history
