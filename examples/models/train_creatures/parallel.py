"""Training by several single-threaded processes that average their gradients or, now and then, their weights.

On a small or busy CPU this is much faster than one process with several threads, whose threads wait for each
other in every single operation.
"""
import os
import tempfile

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def rank():
    return dist.get_rank() if dist.is_initialized() else 0


def workers():
    return dist.get_world_size() if dist.is_initialized() else 1


def average(tensors, spent):
    """Averages the tensors in place over all processes; returns the average of `spent`, so that all stop together."""
    if workers() == 1:
        return spent
    flat = torch.cat([t.reshape(-1) for t in tensors] + [torch.tensor([spent])])
    dist.all_reduce(flat)
    flat /= workers()
    at = 0
    for t in tensors:
        t.copy_(flat[at:at + t.numel()].view_as(t))
        at += t.numel()
    return flat[-1].item()


def _work(index, count, store, function, arguments):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method="file://" + store, rank=index, world_size=count)
    function(*arguments)
    dist.barrier()
    dist.destroy_process_group()


def run(function, arguments, count):
    """Calls function(*arguments) in `count` processes and waits; function must be importable."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_work, (count, os.path.join(folder, "store"), function, arguments), nprocs=count)
