"""The compiled engine where torch makes processes: data-parallel training, and data loaders that fork."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from carousel.nn import Recurrent

POSIX = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

DATA_PARALLEL = """
    import os, sys, torch
    import torch.distributed as distributed
    from torch.nn.parallel import DistributedDataParallel
    from carousel.nn import Recurrent

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = Recurrent("lstm", 5, 6, num_layers=2, bidirectional=True, engine="cpu", dtype=torch.float64)
            self.second = Recurrent("gru", 12, 4, engine="cpu", dtype=torch.float64)

        def forward(self, x, lengths):
            return self.second(self.first(x, lengths=lengths)[0], lengths=lengths)[0]

    def train(model, part):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        forward = torch.compile(model, backend="aot_eager")
        for step in range(3):
            generator = torch.Generator().manual_seed(step)
            x = torch.randn(7, 8, 5, generator=generator, dtype=torch.float64)[:, part]
            lengths = torch.randint(0, 8, (8,), generator=generator)[part]
            optimizer.zero_grad()
            forward(x, lengths).pow(2).sum().div(len(lengths)).backward()
            optimizer.step()
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    torch.manual_seed(1)
    model = Model()
    rank = int(sys.argv[1])
    if rank < 0:
        found = train(model, slice(None))
    else:
        store = distributed.FileStore(sys.argv[2], 2)
        distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
        found = train(DistributedDataParallel(model), slice(rank, None, 2))
        distributed.destroy_process_group()
    torch.save(found, sys.argv[3])
"""


def start(rank: int, folder) -> subprocess.Popen:
    script = folder / "train.py"
    script.write_text(textwrap.dedent(DATA_PARALLEL))
    given = [str(rank), str(folder / "store"), str(folder / f"weights {rank}")]
    return subprocess.Popen([sys.executable, str(script), *given], stderr=subprocess.PIPE, text=True)


def test_two_processes_give_what_one_gives(tmp_path):
    """Each with every second sequence; the gradients are averaged before each step."""
    processes = [start(rank, tmp_path) for rank in (-1, 0, 1)]
    for process in processes:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    whole, *parts = (torch.load(tmp_path / f"weights {rank}", weights_only=True) for rank in (-1, 0, 1))
    assert torch.equal(*parts)
    torch.testing.assert_close(parts[0], whole, rtol=1e-9, atol=1e-12)


class Encoded(Dataset):
    """Examples that a recurrent layer encodes where they are read."""

    def __init__(self, layer: Recurrent) -> None:
        self.layer = layer

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> torch.Tensor:
        x = torch.randn(index + 1, 1, 5, generator=torch.Generator().manual_seed(index))
        with torch.no_grad():
            return self.layer(x)[0][-1, 0]


@POSIX
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.parametrize("ran_before", [True, False])
def test_data_loaders_that_fork(ran_before):
    data = Encoded(Recurrent("lstm", 5, 6, engine="cpu"))
    if ran_before:  # with torch's threads alive in the parent
        data.layer(torch.randn(40, 32, 5))[0].sum().backward()
    loader = DataLoader(data, batch_size=4, num_workers=2, multiprocessing_context="fork")
    found = torch.cat(list(loader))
    torch.testing.assert_close(found, torch.stack([data[i] for i in range(12)]))
