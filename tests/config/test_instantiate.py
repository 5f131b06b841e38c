"""Building ``_target_`` objects, and refusing those that are not trusted."""

import inspect
import pickle
import textwrap
from fractions import Fraction

import pytest

from medseg.config.instantiate import build, locate, named_targets, shipped, targets
from medseg.config.schema import arguments
from medseg.errors import MedsegError

FRACTION = ["fractions.Fraction"]
MEDNEXT = "monai.networks.nets.MedNeXt"


def test_builds_nested_objects_first():
    spec = {
        "_target_": "builtins.dict",
        "one": {"_target_": "fractions.Fraction", "numerator": 1, "denominator": 3},
        "many": [{"_target_": "fractions.Fraction", "numerator": 2}, {"plain": {"_target_": "builtins.list"}}],
    }
    trust = ["builtins.dict", "builtins.list", "fractions.Fraction"]
    assert build(spec, "model", trust) == {"one": Fraction(1, 3), "many": [Fraction(2), {"plain": []}]}


def test_arguments_of_the_call_come_first():
    assert build({"_target_": "fractions.Fraction"}, "model", FRACTION, 1, 2) == Fraction(1, 2)
    assert build({"_target_": "fractions.Fraction", "numerator": 1}, "model", FRACTION, numerator=5) == Fraction(5)


def test_targets_are_found_at_any_depth():
    spec = {"_target_": "a", "x": [{"y": {"_target_": "b"}}, ({"_target_": "c"},)], "text": "_target_"}
    assert set(targets(spec)) == {"a", "b", "c"}


def test_named_targets_are_those_of_the_yaml():
    assert {"medseg.models.UNet", "torch.optim.AdamW", "medseg.augmentation.Gamma"} <= named_targets()
    assert set(arguments()) <= named_targets()


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
    monkeypatch.setattr("medseg.config.instantiate.locate", lambda name: pytest.fail("located a stranger"))
    stranger = list(targets(spec))[-1]
    with pytest.raises(MedsegError) as refusal:
        build(spec, "model", {"builtins.dict", "fractions.Fraction"})
    assert f"trust=[{stranger}]" in str(refusal.value)


def test_an_alias_of_a_trusted_module_is_a_stranger(tmp_path):
    class Payload:
        def __reduce__(self):
            return (pytest.fail, ("the payload ran",))

    path = tmp_path / "payload.pkl"
    path.write_bytes(pickle.dumps(Payload()))
    spec = {"_target_": "torch.nn.modules.module.torch.load", "f": str(path), "weights_only": False}
    with pytest.raises(MedsegError, match="does not ship"):
        build(spec, "model", named_targets())


def test_trusted_names_build():
    assert build({"_target_": "fractions.Fraction"}, "model", FRACTION, 1) == 1


def test_a_place_takes_the_names_of_its_own_group_alone():
    assert "medseg.models.UNet" in shipped("model")
    assert "medseg.io.layouts.phantom" in shipped("dataset.layout") - shipped("model")
    assert not shipped("model.norm")
    with pytest.raises(MedsegError, match=r"model: torch\.optim\.SGD(.|\n)*may stand only where conf/ has it"):
        build({"_target_": "torch.optim.SGD"}, "model", [])


@pytest.mark.parametrize("trust", [[], ["medseg.io.layouts.phantom"]])
def test_medseg_s_own_names_stand_nowhere_else_whoever_trusts_them(trust, tmp_path):
    writer = {"_target_": "medseg.io.layouts.phantom", "root": str(tmp_path / "x"), "dims": 2, "channels": 1}
    spec = {"_target_": "medseg.models.UNet", "norm": writer | {"cases": 4, "size": 16, "seed": 0}}
    with pytest.raises(MedsegError, match=r"model\.norm: medseg\.io\.layouts\.phantom"):
        build(spec, "model", trust)
    assert not any(tmp_path.iterdir())


def test_a_network_takes_no_object_that_nobody_trusts_and_a_loss_takes_losses():
    loss = {"_target_": "medseg.training.losses.FocalLoss"}
    with pytest.raises(MedsegError, match=r"model\.blocks\.0"):
        build({"_target_": "medseg.models.UNet", "blocks": [{"_target_": "medseg.models.UNet"}]}, "model", [])
    total = {"_target_": "medseg.training.losses.WeightedSum", "weights": {"mine": 1.0}, "mine": loss}
    assert "mine" in dict(build(total, "loss", []).named_children()) or build(total, "loss", [])
    with pytest.raises(MedsegError, match=r"loss\.gamma"):
        build({**loss, "gamma": loss}, "loss", [])


def test_what_a_call_passes_is_no_description():
    given = build({"_target_": "builtins.dict"}, "model", ["builtins.dict"], inner={"_target_": "os.system"})
    assert given == {"inner": {"_target_": "os.system"}}


def test_wrong_argument_is_named_with_the_nearest():
    with pytest.raises(MedsegError) as error:
        build({"_target_": "textwrap.TextWrapper", "widht": 3}, "model", ["textwrap.TextWrapper"])
    assert "textwrap.TextWrapper" in str(error.value)
    assert "'widht'" in str(error.value)
    assert "Did you mean 'width'?" in str(error.value)


def test_missing_argument_is_named():
    with pytest.raises(MedsegError, match=r"missing a required argument: 'text'.*It accepts: text, width"):
        build({"_target_": "textwrap.wrap"}, "model", ["textwrap.wrap"])


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


@pytest.mark.parametrize("target", sorted(arguments()))
def test_medseg_s_own_targets_take_the_arguments_of_the_table(target):
    assert set(arguments()[target]) <= set(inspect.signature(locate(target)).parameters)


def test_a_bug_of_medsegs_own_is_not_taken_for_a_wrong_argument(monkeypatch):
    from medseg.io import layouts

    def broken(root):
        return {}[root]

    monkeypatch.setattr(layouts, "folder", broken)
    with pytest.raises(KeyError):
        build({"_target_": "medseg.io.layouts.folder", "root": "x"}, "dataset.layout", [])


def test_another_packages_refusals_are_worded():
    with pytest.raises(MedsegError, match="cannot be built from"):
        build({"_target_": MEDNEXT, "in_channels": 1, "out_channels": 2, "spatial_dims": 7}, "model", [MEDNEXT])
