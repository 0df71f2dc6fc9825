"""Golden numbers of torch's CPU generator -> noise.json. Made with torch 2.15.0 on x86-64 (AVX2 or AVX-512).

    python tests/golden/noise.py > tests/golden/noise.json
"""

import json

import torch


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
}))
