"""Golden numbers of torch's CPU generator, numpy's seed sequence and torchsde's Brownian tree -> noise.json.
Made with torch 2.15.0, numpy 2.4.6, torchsde 0.2.6 on x86-64 (AVX2 or AVX-512).

    python tests/golden/noise.py > tests/golden/noise.json
"""

import json

import numpy
import torch
import torchsde


def bits(t):
    return [int(v) & 0xFFFFFFFF for v in t.contiguous().view(torch.int32).flatten()]


def randn(seed, calls):
    torch.manual_seed(seed)
    out = []
    for n in calls:
        value = torch.randn(n)
        # Of a big draw the first and last sixteen.
        out.append({"n": n, "bits": bits(value if n <= 64 else torch.cat([value[:16], value[-16:]]))})
    return {"seed": seed, "calls": out}


def randint(low, high):
    torch.manual_seed(5)
    return {"low": low, "high": high, "values": torch.randint(low, high, (6,)).tolist()}


def words(entropy, key):
    """The four words that the Brownian tree takes for a node (the root's own come without a key)."""
    sequence = numpy.random.SeedSequence(entropy=entropy, spawn_key=key, pool_size=24)
    return {"entropy": entropy, "key": list(key), "words": sequence.generate_state(4).tolist()}


def brownian(seed, n, low, high, queries):
    """Increments over `queries`, asked as ComfyUI asks: ends that are f32."""
    single = lambda v: float(torch.tensor(v, dtype=torch.float32))
    low, high = single(low), single(high)
    tree = torchsde.BrownianTree(low, torch.zeros(n), high, entropy=seed)
    out = []
    for a, b in queries:
        a, b = single(a), single(b)
        out.append({"from": a, "to": b, "bits": bits(tree(a, b))})
    return {"seed": seed, "n": n, "low": low, "high": high, "queries": out}


torch.set_num_threads(1)
torch.manual_seed(11)
rand = bits(torch.rand(20))
print(json.dumps({
    "torch": torch.__version__,
    "rand": rand,
    "randn": [
        randn(0, [3]), randn(0, [16]), randn(42, [1, 1, 1, 7, 15, 16, 3]), randn(42, [20, 17, 31, 33]),
        randn(2**32 + 7, [64, 5]), randn(2**63 + 12345, [4 * 64 * 64]), randn(1, [1000003, 2, 2]),
    ],
    "randint": [randint(0, 1000), randint(-5, 5), randint(0, 2**28 - 1), randint(0, 2**28), randint(0, 2**31), randint(-2**40, 2**40)],
    "seed_sequence": [
        words(0, ()), words(0, (0, 0)), words(7, (1, 1)), words(2**32 + 7, (2**23 + 5, 23)), words(2**64 - 1, (2**34 + 3, 34)), words(2**32, (2**32, 40)),
    ],
    "brownian": [
        brownian(0, 18, 0.0291675, 14.614642, [(0.0291675, 14.614642), (9.1, 14.614642), (5.5, 9.1), (0.0291675, 0.05), (7.3218, 7.321801), (2.0, 3.0)]),
        brownian(3, 5, 0.0291675, 14.614642, [(11.3, 14.614642), (0.0291675, 0.03), (0.0078125, 0.5)]),
        brownian(2**32 + 7, 16, 0.0291675, 4518.76, [(7.25, 4518.76), (7.25, 7.3), (1000.0001, 3000.2)]),
        brownian(2**64 - 1, 33, 0.35, 0.71, [(0.35, 0.71), (0.5, 0.6), (0.6, 0.71)]),
    ],
}))
