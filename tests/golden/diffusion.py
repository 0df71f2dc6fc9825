"""Golden sigmas -> diffusion.json, computed by ComfyUI's own functions (0.33.0, commit 783545f6) with torch 2.15.0, scipy 1.17.1.

    python tests/golden/diffusion.py PATH_OF_A_COMFYUI_CHECKOUT > tests/golden/diffusion.json

Only numbers are kept. The functions are cut out of the checkout, because importing ComfyUI needs all of its requirements.
"""

import ast
import json
import math
import sys
from collections import namedtuple
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy
import scipy.integrate
import scipy.stats
import torch

comfy = Path(sys.argv[1]) / "comfy"


def cut(path, names, scope):
    """Run the definitions called `names` of a source file in `scope`."""
    tree = ast.parse((comfy / path).read_text())
    body = [n for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and n.name in names]
    assert {n.name for n in body} == set(names), set(names) - {n.name for n in body}
    exec(compile(ast.Module(body=body, type_ignores=[]), str(path), "exec"), scope)


scope = dict(torch=torch, math=math, numpy=numpy, scipy=scipy, integrate=scipy.integrate, partial=partial, np=numpy)
cut("ldm/modules/diffusionmodules/util.py", ["make_beta_schedule"], scope)
cut("model_sampling.py", ["ModelSamplingDiscrete", "EPS", "reshape_sigma", "rescale_zero_terminal_snr_sigmas"], scope)
cut("k_diffusion/sampling.py", ["append_zero", "get_sigmas_karras", "get_sigmas_exponential"], scope)
cut("samplers.py", ["simple_scheduler", "ddim_scheduler", "normal_scheduler", "beta_scheduler", "linear_quadratic_schedule", "kl_optimal_scheduler"], scope)
HANDLERS = {
    "simple": (scope["simple_scheduler"], True), "sgm_uniform": (partial(scope["normal_scheduler"], sgm=True), True),
    "karras": (scope["get_sigmas_karras"], False), "exponential": (scope["get_sigmas_exponential"], False),
    "ddim_uniform": (scope["ddim_scheduler"], True), "beta": (scope["beta_scheduler"], True), "normal": (scope["normal_scheduler"], True),
    "linear_quadratic": (scope["linear_quadratic_schedule"], True), "kl_optimal": (scope["kl_optimal_scheduler"], False),
}
Handler = namedtuple("Handler", "handler use_ms")
scope["SCHEDULER_HANDLERS"] = {k: Handler(*v) for k, v in HANDLERS.items()}
scope["SCHEDULER_NAMES"] = list(HANDLERS)
scope["SAMPLER_NAMES"] = [
    "euler", "euler_ancestral", "heun", "dpm_2", "dpm_2_ancestral", "lms", "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_2m", "dpmpp_2m_sde",
    "dpmpp_2m_sde_heun", "dpmpp_3m_sde", "ddpm", "lcm", "ddim", "uni_pc", "uni_pc_bh2"]
cut("samplers.py", ["calculate_sigmas", "KSampler"], scope)


def sampling(zsnr):
    return type("MS", (scope["ModelSamplingDiscrete"], scope["EPS"]), {})(zsnr=zsnr)


def ksampler(sampler, scheduler, steps, denoise, zsnr=False):
    model = SimpleNamespace(get_model_object=lambda _: sampling(zsnr))
    return scope["KSampler"](model, steps, "cpu", sampler, scheduler, denoise).sigmas


def row(sampler, scheduler, steps, denoise, zsnr=False):
    return dict(sampler=sampler, scheduler=scheduler, steps=steps, denoise=denoise, zsnr=zsnr, sigmas=ksampler(sampler, scheduler, steps, denoise, zsnr).tolist())


def rows():
    for scheduler in HANDLERS:
        for steps in [2, 5, 20, 37]:
            yield row("euler", scheduler, steps, 1.0)
        yield row("euler", scheduler, 10, 0.6)
        yield row("euler", scheduler, 7, 0.35)
        yield row("dpm_2", scheduler, 8, 1.0)
        yield row("dpm_2_ancestral", scheduler, 6, 0.5)
        yield row("euler", scheduler, 12, 1.0, True)
        if scheduler != "kl_optimal":
            yield row("euler", scheduler, 1, 1.0)
        yield row("uni_pc", scheduler, 9, 0.8)
        yield row("uni_pc_bh2", scheduler, 1, 1.0)
        yield row("uni_pc", scheduler, 6, 1.0, True)


if __name__ == "__main__":
    print(json.dumps({"sigmas": list(rows())}))
