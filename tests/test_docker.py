"""The Dockerfile, run in parts without Docker: what it copies is there, and pip is asked for the right packages."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def stages() -> list[list[tuple[str, str]]]:
    """Return the steps of each stage: the instruction and what follows it."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE)
    steps = [line.partition(" ") for line in text.replace("\\\n", "").splitlines() if line.strip()]
    beginnings = [index for index, (instruction, _, _) in enumerate(steps) if instruction == "FROM"]
    ends = [*beginnings[1:], len(steps)]
    parts = (steps[begin:end] for begin, end in zip(beginnings, ends, strict=True))
    return [[(instruction, rest.strip()) for instruction, _, rest in part] for part in parts]


WHEEL, IMAGE = stages()


def of_image(instruction: str) -> list[str]:
    return [rest for name, rest in IMAGE if name == instruction]


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """What ``.dockerignore`` leaves of the checkout: all but what it lets in by name."""
    lines = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line[:1] not in ("", "#")]
    assert lines[0] == "*"
    names = [line.removeprefix("!") for line in lines if line.startswith("!")]
    folder = tmp_path_factory.mktemp("context")
    for name in names:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


def run_step(step, folder, **environment):
    """Run a step in a folder with a ``pip`` that only prints its arguments."""
    pip = folder / "bin" / "pip"
    pip.parent.mkdir(exist_ok=True)
    pip.write_text('#!/bin/sh\necho pip "$@"\n')
    pip.chmod(0o755)
    (pip.parent / "python").unlink(missing_ok=True)
    (pip.parent / "python").symlink_to(sys.executable)
    environment = os.environ | {"PATH": f"{pip.parent}{os.pathsep}{os.environ['PATH']}"} | environment
    return subprocess.run(["/bin/sh", "-c", step], cwd=folder, env=environment, capture_output=True, text=True)


def test_the_context_makes_the_whole_package(context, tmp_path):
    assert ("COPY", ". .") in WHEEL
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(context)]
    subprocess.run(command, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    packed = zipfile.ZipFile(wheel).namelist()
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "medseg").rglob("*.py")}
    assert modules <= set(packed)
    assert "medseg/conf/train.yaml" in packed
    assert sum(path.stat().st_size for path in context.rglob("*") if path.is_file()) < 5_000_000


def test_files_are_in_the_context_and_code_comes_last(context):
    copied = [name for rest in of_image("COPY") for name in rest.split()[:-1]]
    assert copied == ["constraints.txt", "pyproject.toml"]
    assert all((context / name).is_file() for name in copied)
    [*_, last] = of_image("RUN")
    assert "from=wheel" in last
    assert last.endswith("pip install --no-deps /dist/*.whl")


def test_it_predicts_and_not_as_root():
    assert of_image("ENTRYPOINT") == ['["medseg", "predict"]']
    [user] = of_image("USER")
    assert int(user) > 0
    assert IMAGE.index(("USER", user)) > max(index for index, (name, _) in enumerate(IMAGE) if name in ("RUN", "COPY"))


@pytest.mark.parametrize(("device", "index"), [("cpu", ["https://download.pytorch.org/whl/cpu"]), ("cuda", [])])
def test_device_chooses_the_build_of_pytorch(device, index, tmp_path):
    shutil.copy(ROOT / "constraints.txt", tmp_path)
    [step] = [rest for rest in of_image("RUN") if "torch.txt" in rest]
    done = run_step(step, tmp_path, DEVICE=device)
    assert done.returncode == 0
    assert re.findall(r"https?://\S+", done.stdout) == index
    assert re.fullmatch(r"torch==[\d.]+\n", (tmp_path / "torch.txt").read_text())


def test_an_unknown_device_ends_the_build_with_a_message(tmp_path):
    shutil.copy(ROOT / "constraints.txt", tmp_path)
    [step] = [rest for rest in of_image("RUN") if "torch.txt" in rest]
    done = run_step(step, tmp_path, DEVICE="tpu")
    assert (done.returncode, done.stderr) == (1, "DEVICE=tpu: allowed are cpu and cuda\n")


def test_dependencies_are_those_of_the_package_and_its_extras(tmp_path):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    [step] = [rest for rest in of_image("RUN") if "requirements.txt" in rest]
    for names in ([], ["dicom"], ["dicom", "onnx"]):
        done = run_step(step, tmp_path, EXTRAS=" ".join(names))
        assert done.stdout == "pip install --constraint constraints.txt --requirement requirements.txt\n"
        wanted = [*project["dependencies"], *(line for name in names for line in extras[name])]
        assert (tmp_path / "requirements.txt").read_text().splitlines() == wanted
