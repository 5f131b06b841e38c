"""Building ``_target_`` objects, and refusing those that are not trusted."""

import inspect
import pickle
import textwrap
from fractions import Fraction

import pytest

from medseg.build import build, locate, named_targets, targets
from medseg.errors import MedsegError
from medseg.keys import ARGUMENTS


def test_builds_nested_objects_first():
    spec = {
        "_target_": "builtins.dict",
        "one": {"_target_": "fractions.Fraction", "numerator": 1, "denominator": 3},
        "many": [{"_target_": "fractions.Fraction", "numerator": 2}, {"plain": {"_target_": "builtins.list"}}],
    }
    assert build(spec) == {"one": Fraction(1, 3), "many": [Fraction(2), {"plain": []}]}


def test_arguments_of_the_call_come_first():
    assert build({"_target_": "fractions.Fraction"}, 1, 2) == Fraction(1, 2)
    assert build({"_target_": "fractions.Fraction", "numerator": 1}, numerator=5) == Fraction(5)


def test_targets_are_found_at_any_depth():
    spec = {"_target_": "a", "x": [{"y": {"_target_": "b"}}, ({"_target_": "c"},)], "text": "_target_"}
    assert set(targets(spec)) == {"a", "b", "c"}


def test_named_targets_are_those_of_the_yaml():
    assert {"medseg.models.UNet", "torch.optim.AdamW", "medseg.augmentation.Gamma"} <= named_targets()
    assert set(ARGUMENTS) <= named_targets()


@pytest.mark.parametrize(
    "spec",
    [
        {"_target_": "os.system", "command": "true"},
        {"_target_": "fractions.os.system", "command": "true"},
        {"_target_": "builtins.dict", "inner": [{"_target_": "os.system", "command": "true"}]},
        {"_target_": "fractions.Fraction "},
    ],
)
def test_strangers_are_refused_before_anything_is_imported(spec, monkeypatch):
    monkeypatch.setattr("medseg.build.locate", lambda name: pytest.fail("located a stranger"))
    stranger = list(targets(spec))[-1]
    with pytest.raises(MedsegError) as refusal:
        build(spec, trusted={"builtins.dict", "fractions.Fraction"})
    assert f"trust=[{stranger}]" in str(refusal.value)


def test_an_alias_of_a_trusted_module_is_a_stranger(tmp_path):
    class Payload:
        def __reduce__(self):
            return (pytest.fail, ("the payload ran",))

    path = tmp_path / "payload.pkl"
    path.write_bytes(pickle.dumps(Payload()))
    spec = {"_target_": "torch.nn.modules.module.torch.load", "f": str(path), "weights_only": False}
    with pytest.raises(MedsegError, match="does not ship"):
        build(spec, trusted=named_targets())


def test_trusted_names_build():
    assert build({"_target_": "fractions.Fraction"}, 1, trusted={"fractions.Fraction"}) == 1


def test_wrong_argument_is_named_with_the_nearest():
    with pytest.raises(MedsegError) as error:
        build({"_target_": "textwrap.TextWrapper", "widht": 3})
    assert "textwrap.TextWrapper" in str(error.value)
    assert "'widht'" in str(error.value)
    assert "Did you mean 'width'?" in str(error.value)


def test_missing_argument_is_named():
    with pytest.raises(MedsegError, match=r"missing a required argument: 'text'.*It accepts: text, width"):
        build({"_target_": "textwrap.wrap"})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_package.Net", "no module 'no_such_package'"),
        ("textwrap.TextWraper", "Did you mean 'TextWrapper'"),
        ("textwrap", "no class or function"),
        ("textwrap.TextWrapper.nothing.at_all", "has no 'nothing'"),
    ],
)
def test_unknown_target_is_explained(name, message):
    with pytest.raises(MedsegError, match=message):
        locate(name)


def test_locate_finds_attributes_of_classes():
    assert locate("textwrap.TextWrapper") is textwrap.TextWrapper
    assert locate("fractions.Fraction.from_float")(0.5) == Fraction(1, 2)


def test_module_that_lacks_an_import_says_so(tmp_path, monkeypatch):
    (tmp_path / "halfway.py").write_text("import not_installed_anywhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MedsegError, match="importing halfway failed: No module named 'not_installed_anywhere'"):
        locate("halfway.Net")


@pytest.mark.parametrize("target", sorted(ARGUMENTS))
def test_medseg_s_own_targets_take_the_arguments_of_the_table(target):
    assert set(ARGUMENTS[target]) <= set(inspect.signature(locate(target)).parameters)


def test_a_bug_of_medsegs_own_is_not_taken_for_a_wrong_argument(monkeypatch):
    from medseg.io import layouts

    def broken(root):
        return {}[root]

    monkeypatch.setattr(layouts, "folder", broken)
    with pytest.raises(KeyError):
        build({"_target_": "medseg.io.layouts.folder", "root": "x"})


def test_another_packages_refusals_are_worded():
    with pytest.raises(MedsegError, match="cannot be built from"):
        build({"_target_": "monai.networks.nets.MedNeXt", "in_channels": 1, "out_channels": 2, "spatial_dims": 7})
