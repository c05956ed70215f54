"""Random numbers by counter: every draw has its own seed, so a resumed solve needs no generator state."""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

import torch
from torch import Tensor


def derive_seed(seed: int, purpose: str, counter: int = 0) -> int:
    """Return the seed of one draw, a function of (seed, purpose, counter) alone.

    Args:
        seed: the caller's seed, 0 or more.
        purpose: what is drawn; different purposes give independent draws.
        counter: which draw of that purpose, 0 or more.

    Returns:
        A whole number from 0 to 2**63 - 1.

    Example:
        >>> derive_seed(0, "batches", 1) == derive_seed(0, "batches", 1)
        True
        >>> derive_seed(0, "batches", 1) == derive_seed(0, "meta-batches", 1)
        False
    """
    digest = blake2b(f"{seed}/{purpose}/{counter}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def make_generator(seed: int, purpose: str, counter: int = 0) -> torch.Generator:
    """Return a CPU generator for one draw.

    Example:
        >>> int(torch.randint(10**6, (), generator=make_generator(0, "x"))) >= 0
        True
    """
    return torch.Generator().manual_seed(derive_seed(seed, purpose, counter))


def permute(num_rows: int, seed: int, purpose: str, counter: int = 0) -> Tensor:
    """Return a permutation of 0..num_rows-1, int64 on the CPU.

    Example:
        >>> sorted(permute(4, seed=0, purpose="x").tolist())
        [0, 1, 2, 3]
    """
    return torch.randperm(num_rows, generator=make_generator(seed, purpose, counter))


@contextmanager
def isolated_randomness(device: torch.device) -> Iterator[None]:
    """Give the block its own global random state; the caller's comes back at the end.

    Example:
        >>> before = torch.get_rng_state()
        >>> with isolated_randomness(torch.device("cpu")):
        ...     _ = torch.rand(3)
        >>> torch.equal(before, torch.get_rng_state())
        True
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield


def seed_device(seed: int, device: torch.device) -> None:
    """Seed the global generators that a forward pass on ``device`` draws from (dropout masks).

    Only inside ``isolated_randomness``, which puts the caller's state back.

    Example:
        >>> with isolated_randomness(torch.device("cpu")):
        ...     seed_device(1, torch.device("cpu"))
        ...     first = torch.rand(1)
        ...     seed_device(1, torch.device("cpu"))
        ...     bool(first == torch.rand(1))
        True
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)
