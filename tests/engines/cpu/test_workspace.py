"""Memory of one call: aligned, apart from other calls', and used again by the next."""

import threading

import torch

from carousel.engines.cpu import workspace
from carousel.engines.cpu.workspace import LINE, Workspace, reserve
from carousel.nn import Recurrent


def end(space):
    """The address behind the block."""
    return space._block.data_ptr() + space._block.numel()


def test_pieces_begin_at_cache_lines_and_do_not_overlap():
    sizes, starts, used = [1, 0, 64, 65, 4096, 7], [], 0
    for size in sizes:
        start, used = reserve(used, size)
        starts.append(start)
    assert all(start % LINE == 0 for start in starts)
    ends = [start + size for start, size in zip(starts, sizes, strict=True)]
    assert all(stop <= start for stop, start in zip(ends, starts[1:], strict=False))
    assert ends[-1] <= used
    space = Workspace(used)
    assert space.address % LINE == 0
    assert space._block.data_ptr() <= space.address
    assert space.address + used <= end(space)
    space.close()


def test_an_open_block_is_this_calls_alone_and_a_closed_one_serves_the_next():
    first, second = Workspace(5000), Workspace(5000)
    assert abs(first.address - second.address) >= 5000
    kept = first._block
    first.close()
    third = Workspace(100)
    assert third._block is kept
    third.close()
    second.close()


def test_a_block_that_is_too_small_is_replaced():
    Workspace(10).close()
    large = Workspace(1 << 22)
    assert large.address + (1 << 22) <= end(large)
    large.close()


def test_closing_twice_hands_back_once_and_few_are_kept():
    open_ones = [Workspace(10) for _ in range(5)]
    for space in open_ones:
        space.close()
        space.close()
    blocks = [block.data_ptr() for block in workspace._kept.blocks]
    assert len(blocks) == len(set(blocks)) == workspace._MOST


def test_threads_do_not_share():
    space = Workspace(100)
    here = space.address
    space.close()
    there = []
    thread = threading.Thread(target=lambda: there.append(Workspace(100)))
    thread.start()
    thread.join()
    assert there[0].address != here


def test_a_later_call_changes_nothing_of_an_earlier_one():
    """Two calls forwards, then both backwards in either order: what is saved does not lie in the workspace."""
    layer = Recurrent("gru", 5, 19, engine="cpu", dtype=torch.float64)
    inputs = [torch.randn(4, 3, 5, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    wanted = []
    for x in inputs:
        layer(x)[0].square().sum().backward(retain_graph=True)
        wanted.append(x.grad.clone())
        x.grad = None
    for order in ((0, 1), (1, 0)):
        losses = [layer(x)[0].square().sum() for x in inputs]
        for i in order:
            losses[i].backward(retain_graph=True)
            assert torch.equal(inputs[i].grad, wanted[i])
            inputs[i].grad = None
