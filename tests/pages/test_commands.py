"""Every command of README and documentation is one.

Those of medseg, in blocks of the shell and within sentences, are composed and checked as the command line does it:
keys, values (of sweeps each of them), groups and options exist. A stub stands for the job that they would run, or the
sweep; ``make docs-check`` runs them (``test_commands_run.py``). Of other programs what they name of the repository
exists: targets, scripts, extras. A program that is not known here fails, so that a new one is thought of.
"""

import re
import subprocess
import tomllib

import pytest
from written_code import PAGES, ROOT, blocks, inline_commands, words_of

from medseg.cli import command_line, sweep
from medseg.config.schema import CONF

OTHERS = {"tensorboard", "mlflow", "wandb", "git", "cd", "source", "export", "docker", "unzip", "curl", "nvidia-smi"}
"""Programs of others, taken as they are."""

LAUNCHERS = {"torchrun", "srun", "sh"}
"""Programs that start the command of medseg behind their own options."""

STANDS_FOR_ANY = ("…", "...", "NAME")
"""What a reader puts something else for."""

NEEDED = {"predict": ("checkpoint", "input", "output"), "compare": ("runs",), "export": ("checkpoint", "output")}
"""What a command within a sentence leaves out."""


def written() -> dict[str, str]:
    """Return every command by where it is written first."""
    found: dict[str, str] = {}
    for page in PAGES:
        for block in blocks(page, "bash"):
            for command in [] if block.code.startswith("#!") else block.commands():
                found.setdefault(command, str(block))
        for command in inline_commands(page):
            found.setdefault(command, page.name)
    return found


def composed(words: list[str], where: str) -> list[str] | None:
    """Return what is to be composed of a command of medseg, or None where it says nothing that can be.

    Commands that need a config of the reader's are not composed; one of a wrong key is an example. Of those that go on
    with a run the other settings are. A command within a sentence may leave out what every command needs.
    """
    if any(part in word for word in words for part in ("my_conf", "model.dept=", "|")):
        return None
    words = [word for word in words if not word.startswith("resume=")]
    words = [word for word in words if word not in STANDS_FOR_ANY and not word.endswith(("=…", "=..."))]
    if len(words) < 2 or words[0] not in command_line.JOBS or any("NAME" in word for word in words):
        return None
    in_block = ":" in where
    needed = () if in_block else NEEDED.get(words[0], ())
    words += [f"{name}=x" for name in needed if not any(word.startswith(f"{name}=") for word in words)]
    choice = next((word for word in words if word.startswith("dataset=")), "dataset=phantom")
    if choice != "dataset=phantom" and not any(word.startswith("dataset.root=") for word in words) and not in_block:
        words.append("dataset.root=x")
    return words


COMMANDS = written()
OF_MEDSEG = {
    where + " " + command[:60]: words
    for command, where in COMMANDS.items()
    if command.startswith("medseg ") and (words := composed(words_of(command)[1:], where))
}


@pytest.mark.parametrize("words", OF_MEDSEG.values(), ids=OF_MEDSEG)
def test_a_command_of_medseg_is_composed(words, jobs, monkeypatch, capsys):
    """Paths stand for the reader's own."""
    sweeps = []
    monkeypatch.setattr(sweep, "sweep", lambda *checked: sweeps.append(checked) or 0)
    assert command_line.main(words) == 0, capsys.readouterr().err
    assert bool(jobs.configs or sweeps) != bool({"--cfg", "--help", "--version"} & {*words})


@pytest.mark.parametrize("command", [each for each in COMMANDS if not each.startswith("medseg ")])
def test_a_command_of_another_program_names_what_exists(command):
    words = words_of(command)
    while "=" in words[0]:
        words.pop(0)
    program, *rest = words
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        assert {word for word in rest if "=" not in word} <= {*targets}
    elif program == "pip":
        assert rest[0] == "install"
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
        named = [name for word in rest for name in re.findall(r"(?:medseg|\.)\[(.*)\]", word)]
        assert {extra for name in named for extra in name.split(",")} <= extras.keys()
        assert all((ROOT / word).exists() for word in rest if word.endswith(".txt"))
    elif program in ("python", "python3"):
        scripts = [word for word in rest if word.endswith(".py")]
        assert scripts or rest[:2] == ["-m", "http.server"]
        assert all((ROOT / script).is_file() for script in scripts)
    elif program in LAUNCHERS:
        inner = re.search(r"\bmedseg ((?:train|predict|eval) [^']*)", command)
        assert inner
    else:
        assert program in OTHERS, f"{command}: what is {program}?"


def scripts_of_the_shell():
    return [
        pytest.param(block, id=str(block)) for page in PAGES for block in blocks(page, "bash") if block.code[:2] == "#!"
    ]


@pytest.mark.parametrize("block", scripts_of_the_shell())
def test_a_script_of_the_shell_is_one_and_its_command_is_composed(block, jobs, capsys):
    assert subprocess.run(["bash", "-n"], input=block.code.encode(), check=True).returncode == 0
    [line] = re.findall(r"^(?:srun )?medseg (.*?)(?: &.*)?$", block.code, re.MULTILINE)
    words = [word for word in words_of(line) if not word.startswith("resume=")]
    assert command_line.main(words) == 0, capsys.readouterr().err


def test_commands_behind_launchers_are_composed(jobs, capsys):
    for command in COMMANDS:
        inner = re.search(r"\bmedseg ((?:train|predict|eval) [^']*)", command)
        if words_of(command)[0] in LAUNCHERS and inner:
            words = words_of(inner[1].replace("$SLURM_PROCID", "0"))
            words = [word for word in words if not word.startswith(("trainer.devices", "trainer.num_nodes"))]
            assert command_line.main(words) == 0, capsys.readouterr().err


def test_options_of_groups_that_the_pages_name_exist():
    """In settings that are named without a command, as ``loss=dice_ce``."""
    groups = {path.name: {file.stem for file in path.glob("*.yaml")} for path in CONF.iterdir() if path.is_dir()}
    pattern = re.compile(rf"`({'|'.join(groups)})=([a-z][a-z0-9_]*)`")
    named = {match for page in PAGES for match in pattern.findall(page.read_text("utf-8"))}
    assert named
    assert not {(group, option) for group, option in named if option not in groups[group]}
