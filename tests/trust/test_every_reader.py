"""Every function that makes objects of a file is known, with the reason why no code comes of it."""

import ast
from pathlib import Path

import pytest
import yaml

import medseg
from medseg.config.instantiate import LOADER
from medseg.config.settings import OBJECTS
from medseg.config.untrusted import PlainLoader

PACKAGE = Path(medseg.__file__).parent
READERS = {
    *("yaml.safe_load", "yaml.load", "json.load", "json.loads", "torch.load", "np.load", "onnx.load"),
    *("csv.reader", "csv.DictReader"),
}
NEVER = {
    *("yaml.unsafe_load", "yaml.full_load", "OmegaConf.load", "hydra.utils.instantiate", "instantiate"),
    *("pickle.load", "pickle.loads", "eval", "exec", "__import__", "np.loadtxt", "joblib.load", "runpy.run_path"),
}
CHECKED = {
    "config.untrusted.read_json": "the only way from JSON to a config",
    "config.untrusted.parse_yaml": "the only way from YAML to a config: of files by read_yaml, of texts within them",
    "system.torch_files.load_safely": "weights_only; what is a description goes through checkpoint.checked",
}
"""The functions through which a file becomes a config."""

NO_CONFIG = {
    "config.instantiate._named_targets": "conf/ and the user's own --config-dir: names alone are taken",
    "cli.job.run_config.run_job": "the config of this very command, from the process that started this one",
    "cli.job.run_job_of_sweep": "the same",
    "inference.onnx.export.summary": "a graph that was just written",
    "inference.onnx.runtime.checked_weights": "kinds, sizes, which are compared with limits, and arrays of numbers",
    "inference.onnx.runtime.read_onnx": "goes through checkpoint.checked; its network is never built",
    "inference.probabilities.kept_on_disk": "an array of this process's own, without pickles",
    "io.csv_files.read_csv": "texts",
    "io.dicom.decoder_process.Decoders.answer": "the type and shape of pixels, which are compared with a header",
    "config.schema.arguments": "medseg's own file of what its objects take",
    "io.dicom.decoder_process.serve": "the process that started this one",
    "io.layouts.decathlon_json.read_description": "names and values of classes and files",
    "io.dicom.decoder_process": "between a process and its decoders: numbers, names of types and messages",
    "sweeps.shares.gpus": "numbers, from a process that this one started",
    "system.distributed.ranks.Ranks.hear": "the config of this very training, from its first process, which checked it",
    "system.locks.owner": "a number and a name for a message",
    "io.layouts.groups.search_groups": "texts, from a process that this one started",
    "io.tables._rows": "texts",
    "jobs.inspect.images.cached_thumbnail": "weights_only: the bytes of a thumbnail",
    "jobs.evaluate.trials.Trials.score": "arrays of this process's own",
    "preprocessing.cache.load": "weights_only: tensors and numbers",
    "preprocessing.fingerprint.cached.cached_fingerprint": "weights_only: tensors and numbers",
}
"""Functions that read files which hold no config, and what they take."""


def calls(tree):
    """Yield each call's dotted name, with the functions and classes round it."""

    def walk(node, inside):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            inside = (*inside, node.name)
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), inside, node
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inside)

    yield from walk(tree, ())


def all_calls():
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for name, inside, node in calls(ast.parse(path.read_text("utf-8"))):
            yield module, name, inside, node


def test_every_function_that_reads_a_file_is_known():
    found = {".".join((module, *inside)) for module, name, inside, _ in all_calls() if name in READERS}
    known = {*CHECKED, *NO_CONFIG}
    new = {name for name in found if not any(name == one or name.startswith(f"{one}.") for one in known)}
    assert not new, (
        "these turn files into objects: read configs by medseg.config.untrusted, or say here why none comes of it"
    )
    gone = {one for one in known if not any(name == one or name.startswith(f"{one}.") for name in found)}
    assert not gone


def test_nothing_is_loaded_that_can_run_code():
    assert not {(module, name) for module, name, _, _ in all_calls() if name in NEVER}
    assert {ast.unparse(node.args[1]) for _, name, _, node in all_calls() if name == "yaml.load"} <= {
        "PlainLoader",
        "LOADER",
    }
    assert issubclass(PlainLoader, yaml.SafeLoader)
    assert LOADER in (yaml.SafeLoader, getattr(yaml, "CSafeLoader", None))


@pytest.mark.parametrize("name", ["torch.load", "trainer.fit"])
def test_pytorch_s_files_are_loaded_as_weights_only(name):
    found = [node for _, called, _, node in all_calls() if called == name]
    assert found
    for node in found:
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        assert given.get("weights_only") == "True"


def test_arrays_are_loaded_without_pickles():
    for _, name, _, node in all_calls():
        if name == "np.load":
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert given.get("allow_pickle", "False") == "False"


def test_every_object_is_built_for_a_place_and_with_a_trust():
    found = [node for _, name, _, node in all_calls() if name == "build"]
    assert len(found) > 10
    for node in found:
        assert len(node.args) >= 3, ast.unparse(node)
        assert isinstance(node.args[1], ast.Constant), ast.unparse(node)
        assert node.args[1].value in OBJECTS
        trust = ast.unparse(node.args[2])
        assert trust == "()" or "trust" in trust, ast.unparse(node)


def test_only_build_goes_from_names_to_code():
    found = {module for module, name, _, _ in all_calls() if name in ("import_module", "importlib.import_module")}
    assert found == {"__init__", "config.instantiate", "cli.job", "inference.onnx.runtime"}, (
        "public names, jobs and extras by constant names, else by build"
    )
    assert {module for module, name, _, _ in all_calls() if name == "construct"} <= {
        "config.instantiate",
        "models.monai",
    }


def test_the_config_of_a_run_is_read_in_one_function():
    """Whoever reads config.yaml otherwise shows its text or takes a number, and hands nothing on."""
    text = {path: path.read_text("utf-8") for path in PACKAGE.rglob("*.py")}
    found = {".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in text if "read_yaml" in text[path]}
    shown = {
        "evaluation.report.run_info",
        "jobs.evaluate.compare",
        "jobs.evaluate.few_shot",
        "jobs.rundir",
        "sweeps.record",
    }
    own = {"jobs.evaluate.cross_validation", "jobs.train.train", "jobs.training_run", "training.transfer.warm_start"}
    assert found == {"config.untrusted", *shown, *own}  # its own files of conf/
