"""Build wheel and sdist into dist/, check them, and train, test and predict with the wheel as a user would.

The wheel is installed into a new environment and works in an empty folder, so that nothing comes from the checkout.
Needs the package index, and ``scripts/requirements-package.txt``.
"""

import csv
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
TRAINING = ("run_dir=run", "dataset.cases=10", "dataset.size=24", "trainer.max_epochs=2", "trainer.steps_per_epoch=10")


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    """Show and run a command; end with its exit status where it fails.

    Of the environment nothing is passed on that would bring other code than the installed.
    """
    print("$", *command, flush=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    status = subprocess.run(command, cwd=cwd, env=environment, check=False).returncode
    if status:
        sys.exit(f"exit status {status}: {' '.join(map(str, command))}")


def build(folder: Path) -> Path:
    """Build the sdist and from it the wheel, and return the wheel; the checkout itself must give the same wheel."""
    shutil.rmtree(DIST, ignore_errors=True)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", DIST)
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", folder)
    [ours], [direct] = DIST.glob("*.whl"), folder.glob("*.whl")
    if members(ours) != members(direct):
        differing = sorted(name for name, _ in members(ours) ^ members(direct))
        sys.exit("the sdist gives another wheel than the checkout: " + ", ".join(dict.fromkeys(differing)))
    run(sys.executable, "-m", "twine", "check", "--strict", *DIST.iterdir())
    return ours


def members(wheel: Path) -> set[tuple[str, int]]:
    """Return name and checksum of each file in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {(info.filename, info.CRC) for info in archive.infolist()}


def use(wheel: Path, folder: Path) -> None:
    """Install the wheel into a new environment; train on the phantom and predict there, in an empty folder."""
    environment, work = folder / "environment", folder / "work"
    venv.create(environment, with_pip=True)
    work.mkdir()
    scripts = environment / ("Scripts" if os.name == "nt" else "bin")
    pip = (scripts / "python", "-m", "pip", "--disable-pip-version-check")
    run(*pip, "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel, cwd=work)
    run(*pip, "check", cwd=work)
    medseg = scripts / "medseg"
    run(medseg, "doctor", cwd=work)
    run(medseg, "train", *TRAINING, cwd=work)
    [images] = work.glob("outputs/phantom/*/imagesTs")
    run(medseg, "predict", "checkpoint=run", f"input={images}", "output=masks", cwd=work)
    with (work / "masks" / "predictions.csv").open(newline="") as table:
        done = [row["case"] for row in csv.DictReader(table) if row["status"] == "done"]
    scans, masks = (sorted(path.name for path in each.glob("*.nii.gz")) for each in (images, work / "masks"))
    if not scans or masks != scans or len(done) != len(scans):
        sys.exit(f"scans: {', '.join(scans)}; masks: {', '.join(masks)}; done: {', '.join(done)}")
    if not (work / "run" / "test" / "report.html").is_file():
        sys.exit("the training has written no report")
    print(f"{wheel.name} trains, tests and predicts")


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        use(build(Path(folder)), Path(folder))
