"""Seeds of the noise that transforms draw."""

from __future__ import annotations

import torch
from torch import Tensor

from carousel.errors import ConfigError, explain


def seed_words(seed: int | Tensor | None, device: torch.device) -> Tensor:
    """A seed as two words of 32 bits, from torch's generator if None.

    Raises:
        ConfigError: it is no whole number of 64 bits, nor two words.
    """
    if seed is None:
        return torch.randint(0, 2**32, (2,), dtype=torch.long).to(device)
    if isinstance(seed, Tensor):
        fits = seed.shape in ((), (2,)) and seed.dtype in (torch.int32, torch.int64)
    else:
        fits = isinstance(seed, int) and not isinstance(seed, bool) and -(2**63) <= seed < 2**63
    if not fits:
        raise ConfigError(
            explain(
                "Recurrent: this cannot be a seed.",
                got=f"{tuple(seed.shape)}, {seed.dtype}" if isinstance(seed, Tensor) else repr(seed),
                expected="a whole number of 64 bits, as an int or a tensor, or a tensor of its two words, the lower first",
            )
        )
    number = torch.as_tensor(seed, dtype=torch.long, device=device)
    return (number if number.dim() else torch.stack([number, number >> 32])) & 0xFFFFFFFF
