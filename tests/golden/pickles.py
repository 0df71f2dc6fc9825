"""Makes tests/golden/pickles/*: small files of torch.save in all its layouts, and values.safetensors with what is in them.

    pip install torch safetensors      (made with torch 2.15.0)
    python tests/golden/pickles.py
"""
import collections
import os

import torch
from safetensors.torch import save_file

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "pickles")
os.makedirs(OUT, exist_ok=True)
torch.manual_seed(3)


class Callback:
    """What a training framework leaves in its checkpoints."""

    def __init__(self):
        self.best, self.paths = 0.25, {"a": 1}


base = torch.randn(6, 5)
tensors = collections.OrderedDict(
    f32=base, view=base[1:4, 2:], transposed=base.t(), shared=base, f16=torch.randn(3, 2).half(), bf16=torch.randn(4).bfloat16(),
    f64=torch.randn(2, 2).double(), i64=torch.arange(5), scalar=torch.tensor(1.5), empty=torch.zeros(0, 3),
    parameter=torch.nn.Parameter(torch.randn(2, 3)))
lightning = {"epoch": 3, "global_step": 2 ** 40, "pytorch-lightning_version": "1.4.2", "state_dict": tensors, "callbacks": {"x": Callback()},
             "lr_schedulers": [], "big": 2 ** 80, "nothing": None, "flag": True, "text": "é\n", "raw": b"\x00\x01", "pair": (1, -2.5)}
for name, options in (("plain.pt", {}), ("protocol4.pt", dict(pickle_protocol=4)), ("legacy.pt", dict(_use_new_zipfile_serialization=False)),
                      ("legacy_protocol4.pt", dict(_use_new_zipfile_serialization=False, pickle_protocol=4))):
    torch.save(tensors, os.path.join(OUT, name), **options)
torch.save(lightning, os.path.join(OUT, "lightning.ckpt"))

# Embeddings as people have them.
word = torch.randn(2, 8)
torch.save({"<cat>": word[0]}, os.path.join(OUT, "diffusers.bin"))
torch.save({"string_to_token": {"*": 265}, "string_to_param": {"*": word}, "name": "cat", "step": 500, "sd_checkpoint": None,
            "sd_checkpoint_name": None}, os.path.join(OUT, "a1111.pt"))
original = torch.nn.ParameterDict({"*": torch.nn.Parameter(word)})
torch.save({"string_to_token": {"*": torch.tensor(265)}, "string_to_param": original}, os.path.join(OUT, "original.pt"))
values = {k: v.detach().clone().contiguous() for k, v in tensors.items()}
save_file(values | {"word": word}, os.path.join(OUT, "values.safetensors"))
for f in sorted(os.listdir(OUT)):
    print(f, os.path.getsize(os.path.join(OUT, f)))
