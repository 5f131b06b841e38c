"""The stop button of a notebook, pressed while a training trains."""

from collections.abc import Iterator
from tempfile import TemporaryDirectory

import pytest
from jupyter_client import BlockingKernelClient, KernelManager

import medseg

TRAIN = """
import medseg
small = {"trainer.steps_per_epoch": 20, "trainer.max_epochs": 10_000, "model.depth": 2, "model.base_channels": 4}
data = medseg.open_dataset("phantom", "phantom", dims=2, cases=10, size=64)
medseg.train(data, run_dir="run", **small)
"""


@pytest.fixture
def kernel(tmp_path) -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
    with TemporaryDirectory() as sockets:  # short names, as sockets must have
        manager = KernelManager(kernel_name="python3", transport="ipc", ip=f"{sockets}/kernel")
        manager.start_kernel(cwd=str(tmp_path))
        client = manager.client()
        client.start_channels()
        client.wait_for_ready(timeout=120)
        yield manager, client
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


def test_a_stopped_training_has_saved_its_state_and_goes_on(kernel, tmp_path):
    manager, client = kernel
    client.execute(TRAIN)
    error = ""
    while not error:
        message = client.get_iopub_msg(timeout=300)
        text = message["content"].get("text", "")
        assert "epoch 200 " not in text  # it would go on for ever
        if "epoch 1 " in text:
            manager.interrupt_kernel()
        error = message["content"].get("evalue", "")
    assert "to go on: medseg train resume=run" in error
    run = medseg.Run.open(tmp_path / "run")
    assert run.result["status"] == "interrupted"
    assert (run.directory / "checkpoints" / "last.ckpt").is_file()
    epochs = len((run.directory / "metrics.csv").read_text().splitlines()) - 1
    assert epochs >= 1
    client.execute(f"medseg.train(resume='run', **{{'trainer.max_epochs': {epochs + 1}}}).result['status']")
    text = ""
    while not text:
        message = client.get_iopub_msg(timeout=300)
        assert message["msg_type"] != "error", message["content"]
        if message["msg_type"] == "execute_result":
            text = message["content"]["data"]["text/plain"]
    assert text == "'done'"
    assert len((run.directory / "metrics.csv").read_text().splitlines()) - 1 == epochs + 1
