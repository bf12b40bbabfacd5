"""Train one network in several processes, which torchrun starts: each computes its share of every batch."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import distributed, nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.parallel import DistributedDataParallel
from torch.overrides import TorchFunctionMode

from fer_lib.errors import FerError


def get_rank() -> int:
    """Return this process's number, from 0; 0 writes what there is to write."""
    return int(os.environ["RANK"]) if distributed.is_torchelastic_launched() else 0


def get_world_size() -> int:
    """Return how many processes train a network together; 1 without torchrun."""
    return int(os.environ["WORLD_SIZE"]) if distributed.is_torchelastic_launched() else 1


def choose_device() -> torch.device:
    """Return this process's GPU, or the CPU where there is none. Raises FerError where GPUs are too few."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    number = int(os.environ["LOCAL_RANK"]) if get_world_size() > 1 else 0
    if number >= torch.cuda.device_count():
        raise FerError(
            f"torchrun: expected at most {torch.cuda.device_count()} processes here, one for each GPU; use a "
            "smaller --nproc-per-node"
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


@contextmanager
def join_processes() -> Iterator[None]:
    """Talk to the other processes within the block; where there are none, there is nothing to do."""
    if get_world_size() == 1:
        yield
        return
    store, rank, size = next(distributed.rendezvous("env://"))
    # torchrun keeps its store when it starts killed processes again; they would wait for dead ones.
    store = distributed.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def wrap_ddp(model: nn.Module) -> nn.Module:
    """Return the network to train through: its gradients become the mean over the processes."""
    # What batch norms keep is the same everywhere already, see below.
    return DistributedDataParallel(model, forward_sync_buffers=False) if get_world_size() > 1 else model


def all_reduce_mean(value: torch.Tensor) -> torch.Tensor:
    """Return the mean over the processes, through which gradients flow."""
    return _Sum.apply(value) / get_world_size() if get_world_size() > 1 else value


class _Sum(torch.autograd.Function):
    """Over the processes; the gradient of each is that of all."""

    @staticmethod
    def forward(_: Any, value: torch.Tensor) -> torch.Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, gradient: torch.Tensor) -> torch.Tensor:
        return _Sum.forward(_, gradient)


def check_alike(what: Any) -> None:
    """Raise FerError unless all processes have the same, such as the state from which they go on."""
    if get_world_size() > 1:
        found: list[Any] = [None] * get_world_size()
        distributed.all_gather_object(found, what)
        if any(other != found[0] for other in found):
            raise FerError(
                "torchrun: expected one state for all processes, found several; share the folder of models"
            )


def seed_step(seed: int, step: int) -> None:
    """Let this process draw, for dropout, what depends on seed, rank and step alone."""
    if get_world_size() > 1:
        source = np.random.SeedSequence([seed, get_rank(), step])
        torch.manual_seed(int(source.generate_state(1)[0]))


def gather_rows(rows: np.ndarray) -> np.ndarray:
    """Return the rows (N, ...) of which process `r` has every `get_world_size()`th from the `r`th on."""
    if get_world_size() == 1:
        return rows
    shares: list[Any] = [None] * get_world_size()
    distributed.all_gather_object(shares, rows)
    whole = np.empty((sum(map(len, shares)), *rows.shape[1:]), rows.dtype)
    for rank, share in enumerate(shares):
        whole[rank :: len(shares)] = share
    return whole


def sync_batch_norms() -> AbstractContextManager[Any]:
    """Let batch norms within the block normalise by the whole batch's mean and variance, not their share's.

    As `torch.nn.SyncBatchNorm` does, which has no implementation for CPUs. Every layer that calls
    `torch.nn.functional.batch_norm` is covered as it is.
    """
    return _SyncedBatchNorms() if get_world_size() > 1 else nullcontext()


class _SyncedBatchNorms(TorchFunctionMode):
    def __torch_function__(
        self, function: Callable[..., Any], _types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        return (_normalise if function is F.batch_norm else function)(*args, **(kwargs or {}))


def _normalise(
    x: torch.Tensor,
    running_mean: torch.Tensor,
    running_var: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> torch.Tensor:
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    kind, x, over = x.dtype, x.float(), [0, *range(2, x.ndim)]
    # Not E[x^2] - E[x]^2, which cancels in float32.
    mean = all_reduce_mean(x.mean(over))
    centred = x - _broadcast(mean, x)
    variance = all_reduce_mean(centred.square().mean(over))
    with torch.no_grad():
        n = get_world_size() * x.numel() / x.shape[1]
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(variance * n / (n - 1), momentum)
    return (centred * _broadcast(weight * torch.rsqrt(variance + eps), x) + _broadcast(bias, x)).to(kind)


def _broadcast(values: torch.Tensor, over: torch.Tensor) -> torch.Tensor:
    return values.view(1, -1, *[1] * (over.ndim - 2))
