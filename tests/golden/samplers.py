"""Golden runs of samplers -> samplers.json, computed by ComfyUI's own functions (0.33.0, commit 783545f6) with torch 2.15.0, torchsde 0.2.6, scipy 1.17.1.

    python tests/golden/samplers.py PATH_OF_A_COMFYUI_CHECKOUT > tests/golden/samplers.json

Only numbers are kept: of each run every point at which the model was asked, and the result.
"""

import importlib.util
import json
from types import SimpleNamespace

import torch
import torchsde
from diffusion import comfy, cut, ksampler, sampling, scope

SHAPE = (2, 1, 2, 4)
OLD = ["euler", "euler_ancestral", "heun", "dpm_2", "dpm_2_ancestral", "lms", "dpmpp_2s_ancestral", "dpmpp_2m", "ddpm", "lcm"]
SDE = ["dpmpp_sde", "dpmpp_2m_sde", "dpmpp_2m_sde_heun", "dpmpp_3m_sde"]
UNI_PC = ["uni_pc", "uni_pc_bh2"]


class CONST:
    """Flow models, which the samplers ask for; ours are none."""


scope["comfy"] = SimpleNamespace(model_sampling=SimpleNamespace(CONST=CONST))
scope["trange"] = lambda n, disable=None: range(n)
scope["utils"] = SimpleNamespace(append_dims=lambda x, n: x[(...,) + (None,) * (n - x.ndim)])
scope["torchsde"] = torchsde
cut("k_diffusion/sampling.py", [
    "to_d", "get_ancestral_step", "default_noise_sampler", "linear_multistep_coeff", "DDPMSampler_step", "generic_step_sampler",
    "BatchedBrownianTree", "BrownianTreeNoiseSampler", "sigma_to_half_log_snr", "half_log_snr_to_sigma", "offset_first_sigma_for_snr",
] + ["sample_" + name for name in OLD + SDE], scope)
spec = importlib.util.spec_from_file_location("uni_pc", comfy / "extra_samplers/uni_pc.py")
uni_pc = importlib.util.module_from_spec(spec)
spec.loader.exec_module(uni_pc)
RUN = {name: scope["sample_" + name] for name in OLD + SDE} | {"ddim": scope["sample_euler"]}
RUN |= {"uni_pc": uni_pc.sample_unipc, "uni_pc_bh2": uni_pc.sample_unipc_bh2}


def short(tensor):
    return [float(f"{v:.7g}") for v in tensor.flatten().tolist()]


def run(name, scheduler, steps, denoise=1.0, seed=3, zsnr=False, part=slice(None)):
    ms = sampling(zsnr)
    sigmas = ksampler(name, scheduler, steps, denoise, zsnr)[part].clone()
    asked = sigmas.tolist()
    calls = []

    class Model:
        inner_model = SimpleNamespace(inner_model=SimpleNamespace(model_sampling=ms), model_patcher=SimpleNamespace(get_model_object=lambda _: ms))

        def __call__(self, x, sigma, **kwargs):
            calls.append({"sigma": sigma[0].item(), "x": short(x)})
            s = sigma.view(-1, 1, 1, 1)
            return 0.7 * torch.tanh(x / (1 + s * s)) + 0.1

    torch.manual_seed(seed)
    x = torch.randn(SHAPE) * sigmas[0]
    out = RUN[name](Model(), x, sigmas, extra_args={"seed": seed}, disable=True)
    return dict(sampler=name, seed=seed, sigmas=asked, calls=calls, result=short(out))


def runs():
    for name in list(RUN):
        yield run(name, "karras", 12)
        yield run(name, "normal", 6, 0.5, seed=2**32 + 7)
        yield run(name, "sgm_uniform", 5, zsnr=True)
    for name in SDE + UNI_PC:
        yield run(name, "beta", 14, seed=2**63 + 12345)
        # As KSamplerAdvanced cuts a run in two.
        yield run(name, "normal", 10, seed=0, part=slice(0, 5))
        yield run(name, "normal", 10, seed=0, part=slice(4, None))
        for steps in [1, 2, 3]:
            yield run(name, "simple", steps)


torch.set_num_threads(1)
print(json.dumps({"shape": SHAPE, "runs": list(runs())}))
