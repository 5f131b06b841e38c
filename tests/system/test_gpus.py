"""GPUs that are in the machine: why PyTorch cannot use one, and which of several is used. No GPU is needed."""

import logging

import pytest
import torch

from medseg.errors import MedsegError
from medseg.system import device
from medseg.system.device import fullest, pick_device, pick_devices
from medseg.system.gpus import driver, unused
from medseg.system.gpus.unused import unused_gpu

KERNEL_MODULE = "NVRM version: NVIDIA UNIX {} 535.104.05  Sat Aug 19 01:15:15 UTC 2023\nGCC version:  gcc 11.4.0\n"


class Machine:
    """A pretended machine: files as the kernel shows them, and a PyTorch built for a version of CUDA."""

    def __init__(self, root, monkeypatch):
        self.root, self.monkeypatch = root, monkeypatch
        monkeypatch.setattr(driver, "PROC", root / "proc")
        monkeypatch.setattr(driver, "SYS", root / "sys")
        monkeypatch.setattr(unused, "DEV", root / "dev")
        for name in (*unused.VISIBLE, "SLURM_JOB_ID", "SLURM_JOB_GPUS", "SLURM_STEP_GPUS"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PATH", str(root / "bin"))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        device.say_once.cache_clear()
        device.emptiest_gpu.cache_clear()

    def write(self, path, text=""):
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text, "ascii")

    def has_card(self, vendor="0x10de", kind="0x030200"):
        self.write("sys/bus/pci/devices/0000:01:00.0/vendor", f"{vendor}\n")
        self.write("sys/bus/pci/devices/0000:01:00.0/class", f"{kind}\n")

    def has_driver(self, name="x86_64 Kernel Module"):
        self.has_card()
        self.write("proc/driver/nvidia/version", KERNEL_MODULE.format(name))
        self.write("dev/nvidiactl")

    def answers(self, lines):
        self.write("bin/nvidia-smi", "#!/bin/sh\ncat <<END\n" + "\n".join(lines) + "\nEND\n")
        (self.root / "bin/nvidia-smi").chmod(0o755)
        self.monkeypatch.setenv("PATH", f"{self.root / 'bin'}:/bin:/usr/bin")

    def built_for(self, cuda=None, hip=None):
        self.monkeypatch.setattr(torch.version, "cuda", cuda)
        self.monkeypatch.setattr(torch.version, "hip", hip)

        def init():
            raise RuntimeError("No CUDA GPUs are available")

        self.monkeypatch.setattr(torch.cuda, "init", init)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    yield Machine(tmp_path, monkeypatch)
    device.say_once.cache_clear()
    device.emptiest_gpu.cache_clear()


def test_a_machine_without_a_gpu_has_nothing_to_say(machine, caplog):
    machine.has_card("0x8086")  # a graphics unit within the processor
    with caplog.at_level(logging.INFO):
        assert pick_device("auto") == torch.device("cpu")
    assert not caplog.records
    with pytest.raises(MedsegError, match="device gpu: no GPU can be used: there is none in this machine"):
        pick_device("gpu")


@pytest.mark.parametrize("name", ["x86_64 Kernel Module", "Open Kernel Module for x86_64"])
def test_the_drivers_version_is_read(machine, name):
    machine.has_driver(name)
    assert driver.driver_version() == "535.104.05"


def test_pytorch_without_cuda(machine):
    machine.has_driver()
    machine.built_for(None)
    found = unused_gpu()
    assert "without CUDA (driver 535.104.05; torch " in found.reason
    assert "for CUDA 12" in found.cure  # the newest that the driver supports


def test_a_driver_that_is_too_old(machine):
    machine.has_driver()
    machine.built_for("13.0")
    found = unused_gpu()
    assert "too old (driver 535.104.05; " in found.reason
    assert "built for CUDA 13.0, which needs driver 580 or newer" in found.reason
    assert "Update the driver" in found.cure


def test_no_driver(machine):
    machine.has_card()
    machine.built_for("12.8")
    assert "no NVIDIA driver is loaded (driver not found" in unused_gpu().reason
    assert "--gpus all" in unused_gpu().cure


def test_a_container_that_was_not_given_the_gpu(machine):
    machine.has_driver()
    machine.built_for("12.8")
    (machine.root / "dev/nvidiactl").unlink()
    assert "no device files" in unused_gpu().reason
    assert "--gpus all" in unused_gpu().cure


def test_what_else_pytorch_says_is_passed_on(machine):
    machine.has_driver()
    machine.built_for("12.8")
    assert unused_gpu().reason.startswith("PyTorch says: No CUDA GPUs are available (driver 535.104.05")
    assert unused_gpu().cure


def test_wsl_has_no_pci_bus_but_nvidia_smi(machine):
    machine.answers(["551.23"])
    machine.built_for(None)
    assert "driver 551.23" in unused_gpu().reason


def test_amd_counts_where_rocm_is_loaded(machine):
    machine.has_card("0x1002", "0x038000")
    machine.built_for(None)
    assert unused_gpu() is None
    machine.write("sys/class/kfd/kfd/dev")
    assert "without ROCm" in unused_gpu().reason


def test_the_message_is_a_warning_and_comes_once(machine, caplog):
    machine.has_driver()
    machine.built_for(None)
    for _ in range(2):
        assert pick_device("auto") == torch.device("cpu")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "the GPU of this machine is not used" in caplog.text
    for name in ("gpu", "cuda"):
        with pytest.raises(MedsegError, match=f"device {name}: no GPU can be used: PyTorch was installed without CUDA"):
            pick_device(name)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES='' hides all GPUs"),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, "CUDA_VISIBLE_DEVICES='NoDevFiles' hides all GPUs"),
        ({"SLURM_JOB_ID": "7"}, "this Slurm job has none; --gres=gpu:1 asks for one"),
    ],
)
def test_what_was_meant_is_said_in_few_words(machine, monkeypatch, caplog, variables, said):
    machine.has_driver()
    machine.built_for("12.8")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with caplog.at_level(logging.INFO):
        assert pick_device("auto") == torch.device("cpu")
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("INFO", f"computing on the CPU: {said}")
    ]
    with pytest.raises(MedsegError, match="device gpu: no GPU can be used"):
        pick_device("gpu")


class Properties:
    def __init__(self, uuid):
        self.uuid = uuid


@pytest.fixture
def four_gpus(machine, monkeypatch):
    """Four GPUs, which PyTorch and the driver list in different orders, as under CUDA_VISIBLE_DEVICES."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Properties(f"{index}-abc"))
    machine.answers(["GPU-3-abc, 90", "GPU-2-abc, 40000", "GPU-0-abc, 80", "GPU-9-abc, 99000", "GPU-1-abc, 40000"])
    return machine


@pytest.mark.parametrize("name", ["auto", "gpu", "cuda"])
def test_the_emptiest_gpu_is_used_and_of_equals_the_first(four_gpus, name):
    assert pick_device(name) == torch.device("cuda:1")
    four_gpus.answers(["GPU-0-abc, 99000"])
    assert pick_device(name) == torch.device("cuda:1")  # for as long as the process lives


def test_several_that_work_together_are_planned_for_by_the_fullest_of_them(four_gpus):
    assert fullest(pick_devices("auto", 2)) == torch.device("cuda:0")
    assert fullest(pick_devices("auto", -1)) == torch.device("cuda:0")
    assert fullest(pick_devices("auto", [2, 1])) == torch.device("cuda:2")


def test_more_gpus_than_there_are_cannot_work_together(four_gpus):
    with pytest.raises(MedsegError, match=r"trainer\.devices=5: this machine has 4 GPU\(s\)"):
        pick_devices("auto", 5)


@pytest.mark.parametrize(
    ("devices", "numbers"), [(1, [1]), (3, [0, 1, 2]), (-1, [0, 1, 2, 3]), ("auto", [0, 1, 2, 3]), ([3, 0], [3, 0])]
)
def test_several_gpus_are_the_first_or_all_or_those_of_a_list(four_gpus, devices, numbers):
    assert pick_devices("auto", devices) == [torch.device("cuda", number) for number in numbers]


@pytest.mark.parametrize("devices", [[4], [0, 0]])
def test_a_gpu_that_is_not_there_is_refused_and_so_is_one_given_twice(four_gpus, devices):
    with pytest.raises(MedsegError, match=r"4 GPU\(s\), numbered from 0 to 3"):
        pick_devices("gpu", devices)


@pytest.mark.parametrize(("devices", "number"), [("auto", 1), (-1, 1), (1, 1), (3, 3)])
def test_a_cpu_is_one_device_unless_processes_are_asked_for(devices, number):
    assert pick_devices("cpu", devices) == [torch.device("cpu")] * number


def test_a_cpu_has_no_numbers():
    with pytest.raises(MedsegError, match="numbers of some, but the device is cpu"):
        pick_devices("cpu", [0, 1])


def test_without_nvidia_smi_it_is_the_first(four_gpus, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert pick_device("auto") == torch.device("cuda:0")


def test_a_device_by_its_name_stays_what_it_is(four_gpus):
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(("name", "said"), [("nonsense", "Give auto"), ("", "Give auto"), ("cpu:3", "Give auto")])
def test_a_device_of_no_known_name_is_refused_in_few_words(name, said):
    with pytest.raises(MedsegError, match=said) as caught:
        pick_device(name)
    assert len(str(caught.value)) < 100


def test_a_driver_that_answers_nonsense_or_not_at_all_is_asked_once(machine):
    machine.has_card()
    machine.answers([])
    count = machine.root / "asked"
    script = f"#!/bin/sh\necho asked >> '{count}'\nprintf '\\377\\376 580'\n"
    (machine.root / "bin/nvidia-smi").write_text(script)
    assert driver.driver_version() is None
    assert driver.driver_version() is None
    assert driver.free_memory_by_uuid() == {}
    assert count.read_text().split() == ["asked"] * 2  # for each of two questions
