"""The wheel, built through the sdist, brings ``conf/`` along and works from any folder."""

import importlib.util
import os
import re
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel that ``python -m build`` makes from its own sdist."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    assert len(list(out.glob("*.tar.gz"))) == 1
    return path


def test_wheel_holds_every_config_and_help_text(wheel):
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("medseg/conf/")}
    files = [path for suffix in ("yaml", "txt") for path in (ROOT / "conf").rglob(f"*.{suffix}")]
    assert {f"medseg/{path.relative_to(ROOT)}" for path in files} <= packed
    assert any(name.endswith("licenses/LICENSE") for name in zipfile.ZipFile(wheel).namelist())


def test_wheel_holds_every_template_with_its_style_and_scripts(wheel):
    files = [path for suffix in ("html", "css", "js") for path in (ROOT / "medseg").rglob(f"*.{suffix}")]
    assert {str(path.relative_to(ROOT)) for path in files} <= set(zipfile.ZipFile(wheel).namelist())
    assert len(files) > 10


def test_metadata_lead_nowhere_but_to_addresses(wheel):
    archive = zipfile.ZipFile(wheel)
    [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = message_from_bytes(archive.read(name))
    page = metadata.get_payload(decode=True).decode()
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert page.startswith("# medseg\n")
    prose = re.sub(r"^```.*?^```|`[^`\n]+`", "", page, flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)]*)\)|src=\"([^\"]*)\"", prose)
    assert all((link or source).startswith(("http", "#")) for link, source in links)
    assert len(page) > 0.5 * len((ROOT / "README.md").read_text("utf-8"))
    assert "Programming Language :: Python :: 3.13" in metadata.get_all("Classifier")


def test_long_description_keeps_code_and_text():
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    code = '```python\nmasks["liver"](scan)  # [not](a link)\n```\n'
    badge = "![CI](https://b/c.svg)"
    readme = f"""# T

![Terminal](docs/figures/a.png)

[{badge}](docs/ci.md)<img alt="x" src="docs/d.png" width="300">
See [pages on `a[0](b)`](docs/e.md#f), [Hydra](https://hydra.cc) and [below](#t).

{code}"""
    wanted = f"# T\n\n{badge}\nSee pages on `a[0](b)`, [Hydra](https://hydra.cc) and [below](#t).\n\n{code}"
    assert module.long_description(readme) == wanted


def test_wheel_works_from_any_folder(wheel, tmp_path):
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(command, check=True, capture_output=True)
    start = "from medseg.cli.command_line import main; sys.exit(main())"
    code = f"import sys, medseg; print(medseg.__file__, file=sys.stderr); {start}"
    environment = os.environ | {"PYTHONPATH": str(site)}
    arguments = ["train", "model.depth=3", "--cfg", "job"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=elsewhere,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.strip() == str(site / "medseg" / "__init__.py")
    config = yaml.safe_load(done.stdout)
    assert (config["model"]["depth"], config["dataset"]["name"]) == (3, "phantom")
    assert list(elsewhere.iterdir()) == []


def test_constraints_pin_every_dependency():
    import tomllib
    from importlib.metadata import version

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    tested = extras["dev"][-1].removeprefix("medseg[").removesuffix("]").split(",")  # trackers' tests are skipped
    names = [name for extra in ["dev", *tested] for name in extras[extra]]
    wanted = [name for name in [*project["dependencies"], *names] if not name.startswith("medseg[")]
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = dict(line.lower().split("==") for line in lines if line and not line.startswith("#"))
    for requirement in wanted:
        name = re.split(r"[\[>=]", requirement)[0].lower()
        assert pins[name] == version(name).split("+")[0]
