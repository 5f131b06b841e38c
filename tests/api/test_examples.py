"""Every public name has a docstring with an example, and the examples work."""

import doctest
import inspect

import pytest

import medseg

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
NAMES = [name for name in medseg.__all__ if name != "__version__"]


def examples(name: str) -> list[doctest.DocTest]:
    """The examples of a public name: of a class those of its methods, too, of a module those of its functions."""
    found = doctest.DocTestFinder(exclude_empty=True).find(getattr(medseg, name), name, globs={"medseg": medseg})
    return [test for test in found if test.examples]


@pytest.mark.parametrize("name", NAMES)
def test_examples_of_every_public_name_work(name, here, capsys):
    tests = examples(name)
    assert tests, f"medseg.{name} has no example in its docstring"
    for test in tests:
        runner = doctest.DocTestRunner(optionflags=OPTIONS)
        runner.run(test)
        assert not runner.failures, capsys.readouterr().out


def test_every_public_method_says_what_it_does():
    silent = [
        f"{name}.{member}"
        for name in NAMES
        if inspect.isclass(each := getattr(medseg, name))
        for member, value in vars(each).items()
        if not member.startswith("_") and (callable(value) or isinstance(value, property)) and not inspect.getdoc(value)
    ]
    assert not silent
