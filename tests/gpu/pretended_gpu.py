"""A GPU that is not there: tensors that say ``cuda:0`` (or ``mps:0``), with values that are computed on the CPU.

medseg runs on it unchanged, with autograd, autocast, loss scaling, fused optimizers and all of Lightning: below all
these, ``compute`` does every ATen operation on the CPU tensors that the pretended ones hold. Values are real, so that
every branch is the one that a GPU would take. On the way it notes, in a ``Ledger``,

* mixed devices: an operation on a tensor of the GPU and one of the CPU, which CUDA refuses;
* waits: where the host needs a value that the device has yet to compute, or copies from or to it in a blocking way;
* operations by name, for what CUDA cannot do deterministically and what MPS cannot do at all; float64 on the device;
* bytes: the storages that are alive on the device, and the most that there were at once. What a kernel needs for itself
  is not seen.

A module to be imported before torch, by a process of its own: PyTorch's build for CPUs lacks a device guard and the
hooks that tell that there is a device, and asks for them when it is imported. g++ compiles them, once for each version
of PyTorch. Copies that are ``non_blocking`` count as no wait; from memory that is not pinned CUDA may make one of them.
"""

import ctypes
import os
import subprocess
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

KIND = os.environ.get("PRETEND", "cuda")
GUARD = """
#include <ATen/detail/%(kind)sHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

struct %(kind)sHooks : at::%(kind)sHooksInterface {
  template <typename... Args> %(kind)sHooks(Args...) {}
  bool has%(kind)s() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  void init() const override {}
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  void setCurrentDevice(c10::DeviceIndex) const override {}
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex) const override { return 0; }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex) const override { return 0; }
};
namespace at { REGISTER_%(kind)s_HOOKS(%(kind)sHooks); }

constexpr auto KIND = c10::DeviceType::%(kind)s;
struct Guard final : c10::impl::NoOpDeviceGuardImpl<KIND> {
  c10::Device exchangeDevice(c10::Device) const override { return {KIND, 0}; }
  c10::Device getDevice() const override { return {KIND, 0}; }
  c10::Stream getStream(c10::Device) const noexcept override { return c10::Stream(c10::Stream::DEFAULT, {KIND, 0}); }
  c10::Stream exchangeStream(c10::Stream stream) const noexcept override { return stream; }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void synchronizeDevice(const c10::DeviceIndex) const override {}
};
C10_REGISTER_GUARD_IMPL(%(kind)s, Guard);
"""


def load_guard() -> None:
    """Compile the guard and the hooks where this has not been done, and load them.

    Raises:
        SystemExit: they cannot be compiled.
    """
    if "torch" in sys.modules:
        raise ImportError("pretended_gpu comes before torch")
    spec = find_spec("torch")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    torch_folder = Path(spec.submodule_search_locations[0])
    source = GUARD % {"kind": KIND.upper()}
    key = sha256((source + (torch_folder / "version.py").read_text()).encode()).hexdigest()[:16]
    library = Path(__file__).parent / "__pycache__" / f"pretended_{KIND}-{key}.so"
    if not library.exists():
        library.parent.mkdir(exist_ok=True)
        made = library.with_suffix(f".{os.getpid()}")  # others may compile it at the same time
        command = ["g++", "-x", "c++", "-", "-shared", "-fPIC", "-std=c++20", "-O1", "-o", str(made)]
        command += [f"-I{torch_folder / 'include'}", f"-L{torch_folder / 'lib'}", "-lc10", "-ltorch_cpu"]
        subprocess.run(command, input=source, text=True, check=True)
        made.replace(library)
    for file in (torch_folder / "lib" / "libc10.so", torch_folder / "lib" / "libtorch_cpu.so", library):
        ctypes.CDLL(str(file), ctypes.RTLD_GLOBAL)


load_guard()

import torch  # noqa: E402
import torch._dynamo  # noqa: E402 - it looks at torch.cuda before that is changed
import torch.cuda.amp.common  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten  # noqa: E402

torch._dynamo.trace_rules.get_torch_obj_rule_map()
aten = torch.ops.aten
GPU = torch.device(KIND, 0)


class MixedDevicesError(RuntimeError):
    """An operation on tensors of different devices."""


class Ledger:
    """What operations on the device have been seen to do, since ``clear``; the bytes that are alive, since ever."""

    def __init__(self) -> None:
        self.alive: dict[int, int] = {}  # bytes of each storage
        self.bytes = 0
        self.clear()

    def clear(self) -> None:
        """Forget all but what is alive."""
        self.waits: Counter[str] = Counter()
        self.operations: dict[str, str] = {}  # name to the place that first used it
        self.doubles: dict[str, str] = {}
        self.peak = self.bytes

    def note_storage(self, tensor: torch.Tensor) -> None:
        """Count the bytes of a tensor's storage until it is freed."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self.alive:
            self.alive[storage._cdata] = storage.nbytes()
            self.bytes += storage.nbytes()
            self.peak = max(self.peak, self.bytes)
            weakref.finalize(storage, self.forget_storage, storage._cdata).atexit = False

    def forget_storage(self, key: int) -> None:
        """Take the bytes of a freed storage off."""
        self.bytes -= self.alive.pop(key)

    def note_wait(self, kind: str) -> None:
        """Count a wait at the place that it comes from."""
        self.waits[f"{kind} in {place()}"] += 1


LEDGER = Ledger()


def place() -> str:
    """Return the function of medseg, and that of another package which it called, that the operation came from."""
    outside, frame = "", sys._getframe(1)
    while frame := frame.f_back:  # type: ignore[assignment]
        file, name = frame.f_code.co_filename, frame.f_code.co_qualname
        if "/medseg/" in file and "site-packages" not in file:
            return f"{file[file.rindex('/medseg/') + 1 :]}:{name}{outside}"
        if not outside and "site-packages/" in file and "/torch/" not in file:
            outside = f" ({file.split('site-packages/')[1]}:{name})"
    return f"autograd{outside}"


class OnGpu(torch.Tensor):
    """A tensor that says that it is on the GPU; ``held`` is on the CPU and has its values."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    held: torch.Tensor

    @staticmethod
    def __new__(cls, held):
        LEDGER.note_storage(held)
        size, strides = held.size(), held.stride()
        made = torch.Tensor._make_wrapper_subclass(cls, size, strides=strides, dtype=held.dtype, device=GPU)
        made.held = held
        return made

    # Module.to asks for these two, and then swaps what parameters hold, so that they stay the objects that they are.
    def __tensor_flatten__(self):
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(inner, context, size, stride):
        return OnGpu(inner["held"])

    def __repr__(self, *, tensor_contents=None):
        return f"OnGpu({self.held!r})"

    def __reduce_ex__(self, protocol):
        return like(self, self.held.detach()).__reduce_ex__(protocol)

    def __deepcopy__(self, memo):
        memo[id(self)] = made = like(self, OnGpu(self.held.detach().clone()))
        return made

    def tolist(self):
        return self.cpu().tolist()

    # Below all modes PyTorch makes tensors of lists and numbers in an index, and copies them to the device.
    def __getitem__(self, index):
        return super().__getitem__(with_tensors(index))

    def __setitem__(self, index, value):
        super().__setitem__(with_tensors(index), value)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})


def like(tensor, values):
    """Return values as a parameter, if the tensor is one."""
    return torch.nn.Parameter(values, tensor.requires_grad) if isinstance(tensor, torch.nn.Parameter) else values


def with_tensors(index):
    if isinstance(index, list):
        return torch.as_tensor(index).to(GPU)
    return tuple(map(with_tensors, index)) if isinstance(index, tuple) else index


class OnPretendedGpu(TorchDispatchMode):
    """Sees the operations that make a tensor on the GPU, of none or of one on the CPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})


def compute(func, args, kwargs):
    """Do an operation on the CPU, note what it would be on a GPU, and put its results where they would be."""
    flat, spec = tree_flatten((args, kwargs))
    tensors = [value for value in flat if isinstance(value, torch.Tensor)]
    device = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
    if not any(isinstance(tensor, OnGpu) for tensor in tensors) and (device is None or device.type != KIND):
        return func(*args, **kwargs)
    if is_composite(func):  # in inference mode, operations that are made of others come whole
        with OnPretendedGpu():
            return func.decompose(*args, **kwargs)
    note(func, args, kwargs, tensors, device)
    held_args, held_kwargs = tree_unflatten([held(value) for value in flat], spec)
    if held_kwargs.pop("pin_memory", None):
        raise NotImplementedError("pinned memory of a GPU that is not there")
    result = on_cpu(func, held_args, held_kwargs)
    if func is aten._local_scalar_dense.default or (func in COPIES and device and device.type == "cpu"):
        return result
    if func is aten.copy_.default:
        return args[0]
    result = tree_map(lambda value: OnGpu(value) if type(value) is torch.Tensor else value, result)
    for tensor in tree_flatten(result)[0]:
        if isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float64:
            LEDGER.doubles.setdefault(str(func), place())
    return with_operands(func, args, kwargs, result)


@cache
def is_composite(func) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


def held(value):
    """Return the tensor on the CPU for one on the GPU, and the CPU for the GPU."""
    if isinstance(value, OnGpu):
        return value.held
    return torch.device("cpu") if isinstance(value, torch.device) and value.type == KIND else value


def on_cpu(func, args, kwargs):
    """Do an operation; in float32 where a CPU cannot do it in 16 bits and a GPU can."""
    if func is aten._softmax.default and args[2]:  # from 16 bits to float32 on the way
        return func(args[0].float(), args[1], False)
    try:
        return func(*args, **kwargs)
    except (NotImplementedError, RuntimeError) as error:
        if "not implemented for" not in str(error):
            raise
    halves = {value.dtype for value in tree_flatten((args, kwargs))[0] if is_half(value)}
    args, kwargs = tree_map(lambda value: value.float() if is_half(value) else value, (args, kwargs))
    result = func(*args, **kwargs)
    return tree_map(lambda value: value.to(*halves) if isinstance(value, torch.Tensor) else value, result)


def is_half(value) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype in (torch.float16, torch.bfloat16)


def with_operands(func, args, kwargs, result):
    """Put the operand itself in the place of each result that is an operand written into."""
    returns = func._schema.returns
    written = [each.alias_info is not None and each.alias_info.is_write for each in returns]
    if not any(written):
        return result
    names = [argument.name for argument in func._schema.arguments]
    operands = dict(zip(names, args, strict=False)) | kwargs
    of_alias = {
        next(iter(argument.alias_info.before_set)): operands.get(argument.name)
        for argument in func._schema.arguments
        if argument.alias_info is not None and argument.alias_info.is_write
    }
    results = result if isinstance(result, tuple) else (result,)
    replaced = tuple(
        of_alias[next(iter(each.alias_info.before_set))] if is_written else value
        for value, each, is_written in zip(results, returns, written, strict=True)
    )
    return replaced if isinstance(result, tuple) else replaced[0]


# ------------------------------------------------------------------------------------------ what CUDA would make of it

WAITING = {
    aten._local_scalar_dense.default: ".item()",
    aten.is_nonzero.default: "bool()",
    aten.equal.default: "torch.equal",
    aten.nonzero.default: "nonzero",
    aten.masked_select.default: "masked_select",
    aten.unique_dim.default: "unique",
    aten._unique2.default: "unique",
    aten.bincount.default: "bincount",
    aten.repeat_interleave.Tensor: "repeat_interleave",
}
"""Operations whose result, or its shape, the host has to know."""
COPIES = (aten._to_copy.default, aten.copy_.default, aten._copy_from_and_resize.default)
READS = (aten.index.Tensor, aten._unsafe_index.Tensor)
WRITES = (
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
    aten._unsafe_index_put.default,
)
SCALARS = {"where", "lerp", "fill", "masked_fill", "clamp", "_foreach_mul", "_foreach_add"}
"""Beside pointwise operations those that take a tensor of no axis from the CPU."""


def note(func, args, kwargs, tensors, device) -> None:
    """Note an operation and whether the host waits for it.

    Raises:
        MixedDevicesError: CUDA would refuse it.
    """
    LEDGER.operations.setdefault(str(func), "") or LEDGER.operations.update({str(func): place()})
    if func in WAITING:
        LEDGER.note_wait(WAITING[func])
    strangers = [tensor for tensor in tensors if not isinstance(tensor, OnGpu)]
    if func in COPIES:
        source = args[0] if func is aten._to_copy.default else args[1]
        target = device or (source if func is aten._to_copy.default else args[0]).device
        is_blocking = not (kwargs.get("non_blocking") or (len(args) > 2 and args[2]))
        if isinstance(source, OnGpu) and target.type == "cpu":
            LEDGER.note_wait("copy to the CPU")
        elif not isinstance(source, OnGpu) and target.type == KIND and is_blocking:
            LEDGER.note_wait("blocking copy to the GPU")
    elif func in READS + WRITES:
        indices = [index for index in args[1] if index is not None]
        values = args[2] if func in WRITES else None
        # Of an assignment of a number CUDA makes masked_fill, which need not know how many there are.
        is_filled = values is not None and values.numel() == 1 and not isinstance(values, OnGpu)
        if any(index.dtype in (torch.bool, torch.uint8) for index in indices) and not is_filled:
            LEDGER.note_wait("mask as index")
        if isinstance(args[0], OnGpu) and not all(isinstance(index, OnGpu) for index in indices):
            LEDGER.note_wait("index on the CPU")
        if not isinstance(args[0], OnGpu) or (values is not None and not isinstance(values, OnGpu) and values.dim()):
            raise mixed(func, tensors)
    elif strangers:
        is_allowed = torch.Tag.pointwise in func.tags or func._schema.name.split("::")[1].rstrip("_") in SCALARS
        is_written = func._schema.is_mutable and any(args[0] is stranger for stranger in strangers)
        if any(tensor.dim() for tensor in strangers) or not is_allowed or is_written:
            raise mixed(func, tensors)


def mixed(func, tensors) -> MixedDevicesError:
    each = ", ".join(f"{tuple(tensor.shape)} {tensor.dtype} on {tensor.device.type}" for tensor in tensors[:4])
    return MixedDevicesError(f"{func} of {each} at {place()}")


# --------------------------------------------------------------------------------------------- a process that has a GPU

REAL_TENSOR, REAL_GENERATOR, REAL_RUN = torch.tensor, torch.Generator, threading.Thread.run


class Generator:
    """torch.Generator; that of the GPU is one of the CPU."""

    def __new__(cls, device="cpu"):
        return REAL_GENERATOR("cpu" if torch.device(device).type == KIND else device)


def tensor(data, *, dtype=None, device=None, **options):
    """torch.tensor, which copies to the device below all modes."""
    made = REAL_TENSOR(data, dtype=dtype, **options)
    return made if device is None else made.to(device)


class Stream:
    """A stream and its events: what is asked of one has been done by then."""

    def record_event(self):
        return self

    def wait_event(self, event) -> None:
        """Do nothing."""

    def synchronize(self) -> None:
        """Do nothing: what has been copied meanwhile is not waited for."""


def run_with_mode(thread) -> None:
    """Run a thread: a mode belongs to one alone."""
    with OnPretendedGpu():
        REAL_RUN(thread)


@contextmanager
def pretended(*, has_bf16: bool = True, memory: int = 24 * 10**9) -> Iterator[Ledger]:
    """Pretend that the process has one GPU, as far as medseg, Lightning and PyTorch's Python ask for it."""

    def nothing(*_, **__):
        return None

    capability = (8, 9) if has_bf16 else (7, 0)
    properties = {"major": capability[0], "minor": capability[1], "total_memory": memory, "multi_processor_count": 100}
    cuda = {
        **dict.fromkeys(("_lazy_init", "set_device", "empty_cache", "set_rng_state", "set_rng_state_all"), nothing),
        **dict.fromkeys(("manual_seed", "manual_seed_all", "ipc_collect"), nothing),
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "synchronize": lambda *_: LEDGER.note_wait("synchronize"),
        "get_device_name": lambda *_: "Pretended",
        "get_device_capability": lambda *_: capability,
        "get_device_properties": lambda *_: SimpleNamespace(name="Pretended", uuid="0", warp_size=32, **properties),
        "is_bf16_supported": lambda *_, **__: has_bf16,
        "is_current_stream_capturing": lambda: False,
        "get_rng_state": lambda *_: torch.zeros(16, dtype=torch.uint8),
        "get_rng_state_all": list,
        "Stream": lambda *_: Stream(),
        "current_stream": lambda *_: Stream(),
        "stream": lambda *_: nullcontext(),
        "cudart": lambda: SimpleNamespace(cudaHostRegister=lambda *_: 0, cudaHostUnregister=lambda *_: 0),
        "memory_reserved": lambda *_: LEDGER.bytes,
        "memory_stats": lambda *_: {"allocated_bytes.all.peak": LEDGER.peak},
        "memory_allocated": lambda *_: LEDGER.bytes,
        "max_memory_allocated": lambda *_: LEDGER.peak,
        "reset_peak_memory_stats": lambda *_: setattr(LEDGER, "peak", LEDGER.bytes),
        "mem_get_info": lambda *_: (memory - LEDGER.bytes, memory),
    }
    with ExitStack() as stack:
        if KIND == "cuda":
            stack.enter_context(patch.multiple(torch.cuda, **cuda))
            stack.enter_context(patch.object(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False))
        else:
            stack.enter_context(patch.object(torch.backends.mps, "is_available", lambda: True))
            stack.enter_context(patch.multiple(torch.mps, empty_cache=nothing, manual_seed=nothing))
            stack.enter_context(patch("platform.processor", lambda: "arm"))  # which Lightning asks for
        stack.enter_context(patch.object(torch.accelerator, "synchronize", lambda *_: LEDGER.note_wait("synchronize")))
        stack.enter_context(patch.multiple(torch, Generator=Generator, tensor=tensor))
        stack.enter_context(patch.multiple(torch.Tensor, pin_memory=lambda self, *_, **__: self, record_stream=nothing))
        stack.enter_context(patch.object(threading.Thread, "run", run_with_mode))
        stack.enter_context(torch.autograd.set_multithreading_enabled(False))  # backward in this thread, with its mode
        stack.enter_context(OnPretendedGpu())
        yield LEDGER
