"""Networks that are compiled, and those that cannot be: each with one message, and the same outputs."""

from functools import partial

import pytest
import torch
from torch import nn

from medseg.errors import MedsegError
from medseg.training.compiled import Compiled

compile_network = torch.compile


class Broken(nn.Conv2d):
    """A network that is two graphs."""

    def forward(self, x):
        torch._dynamo.graph_break()
        return super().forward(x)


def messages(caplog):
    return [record.message for record in caplog.records if record.name.startswith("medseg")]


@pytest.fixture
def compiled_by(monkeypatch):
    """Return ``compiled_by(backend)``: let networks be compiled by it."""
    return lambda backend: monkeypatch.setattr(torch, "compile", partial(compile_network, backend=backend))


def test_a_network_is_compiled_and_its_copy_and_other_calls_are_not(compiled_by, caplog):
    graphs = []
    compiled_by(lambda graph, examples: graphs.append(graph) or graph.forward)
    network, image = nn.Conv2d(1, 2, 3), torch.ones(1, 1, 5, 5)
    compiled = Compiled(network)
    torch.testing.assert_close(compiled(image), network(image))
    assert len(graphs) == 1
    assert list(network.state_dict()) == ["weight", "bias"]
    assert not messages(caplog)


def no_compiler(graph, examples):
    raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.\nmore")


@pytest.mark.parametrize(
    ("network", "backend", "cause"),
    [(nn.Conv2d, no_compiler, "Failed to find C compiler"), (Broken, "eager", "it breaks into several graphs")],
)
def test_a_network_that_cannot_be_compiled_runs_as_it_is_with_one_message(compiled_by, caplog, network, backend, cause):
    compiled_by(backend)
    plain, image = network(1, 2, 3), torch.ones(1, 1, 5, 5)
    compiled = Compiled(plain)
    for _ in range(2):
        torch.testing.assert_close(compiled(image), plain(image))
    [message] = messages(caplog)
    assert message == f"the network is not compiled, which makes training slower: {compiled.failure}"
    assert cause in message
    assert "\n" not in message


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), MedsegError("not a compiler's")])
def test_errors_of_a_network_that_has_run_compiled_stay_what_they_are(compiled_by, error):
    failing = []

    def backend(graph, examples):
        def run(*inputs):
            if failing:
                raise error
            return graph.forward(*inputs)

        return run

    compiled_by(backend)
    compiled = Compiled(nn.Conv2d(1, 2, 3))
    image = torch.ones(1, 1, 5, 5)
    compiled(image)
    failing.append(True)
    with pytest.raises(type(error)):
        compiled(image)
    assert compiled.failure is None
