"""ComfyUI's MODEL, CLIP and VAE as names, weights and settings, which is what the library makes its own models of.

Weights are taken as they compute: merges and LoRAs applied. What cannot be handed over is refused by name, because leaving it out would silently
learn on another model than the one in the graph.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import comfy.lora
import comfy.model_patcher
import comfy.model_sampling as sampling
import torch

from .native import ErrorKind, Part, VocableError

# ComfyUI's classes of the text encoders of these families. Stable Diffusion 3 without its T5 has the same weights as XL, and reads them otherwise.
TEXT_ENCODERS = ("SD1ClipModel", "SD2ClipModel", "SDXLClipModel")
# What ComfyUI may do to a model without changing what it computes.
HARMLESS_OPTIONS = ("optimized_attention_override", "sample_sigmas", "preferred_attention")
# Parts of ComfyUI's type names for weights that are packed in a way of their own.
PACKED = ("GGMLTensor", "QuantizedTensor")
# Ends of the names of numbers that such weights are unpacked with.
PACKED_NAMES = ("comfy_quant", "weight_scale", "weight_scale_2", "input_scale", "scale_weight", "scale_input", "scaled_fp8")


@dataclass
class Source:
    """One part of a model that ComfyUI holds."""

    part: Part
    name: str
    patcher: comfy.model_patcher.ModelPatcher
    prefix: str = ""
    unused: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    sigmas: torch.Tensor | None = None

    @functools.cached_property
    def saved(self) -> dict[str, torch.Tensor]:
        """Name and weight of each tensor as it is kept, patches not applied."""
        return self.patcher.model_state_dict(self.prefix or None)

    def identity(self) -> tuple[Any, ...]:
        """What a copy of it depends on, besides the module that holds the weights."""
        sigmas = None if self.sigmas is None else tuple(self.sigmas.tolist())
        return (self.part, self.patcher.patches_uuid, sigmas, *sorted(self.settings.items()))

    def dtype(self) -> torch.dtype:
        """The type in which most of the weights are kept."""
        sizes: dict[torch.dtype, int] = {}
        for weight in self.saved.values():
            sizes[weight.dtype] = sizes.get(weight.dtype, 0) + weight.numel()
        if not sizes:
            raise refuse(f"the {self.part.name} has no weights", "Link a model that has been loaded.")
        return max(sizes, key=lambda dtype: sizes[dtype])

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Name and weight of each tensor, patches applied."""
        for name, (original, *patches) in self.patcher.get_key_patches(self.prefix or None).items():
            if name in self.unused:
                continue
            weight, convert = original
            if patches:
                # ComfyUI computes patches in f32 and keeps the result in the weight's type; so does this. Eight bits would swallow most of what a LoRA
                # adds; the copy has sixteen anyway.
                dtype = weight.dtype if weight.element_size() > 1 else torch.float16
                precise = convert(weight.to("cpu", torch.float32, copy=True), inplace=True)
                weight = comfy.lora.calculate_weight(patches, precise, name).to(dtype)
            else:
                weight = convert(weight, inplace=False)
            yield name, weight


def refuse(message: str, help: str) -> VocableError:
    """The error for what cannot be handed over."""
    return VocableError(ErrorKind.INCOMPATIBLE, message, help)


def look(kind: str, value: Any) -> Source:
    """What the link of type `kind` holds."""
    found = {"MODEL": _model, "CLIP": _clip, "VAE": _vae}[kind](value)
    refuse_packed(found)
    _refuse_hooks(found)
    return found


def refuse_packed(source: Source) -> None:
    """Weights that are no plain numbers: there is nothing to learn through."""
    help = "Load the model from a checkpoint in f16, bf16 or f32."
    for name, weight in [*source.patcher.model.named_parameters(), *source.saved.items()]:
        packed = next((kind.__name__ for kind in type(weight).__mro__ if kind.__name__ in PACKED), None)
        if packed:
            raise refuse(f"{name} is a {'GGUF' if packed == PACKED[0] else 'quantised'} weight, which has no gradient", help)
    for name in source.saved:
        if name.rsplit(".", 1)[-1] in PACKED_NAMES:
            raise refuse(f"the {source.part.name} is quantised (it has {name}), and such weights have no gradient", help)


def _model(patcher: Any) -> Source:
    model = patcher.model
    name = type(model).__name__
    if not hasattr(model, "diffusion_model") or not hasattr(model, "latent_format"):
        raise refuse(f"the MODEL is a {name}, wanted one of Stable Diffusion 1, 2 or XL", "Link a model of one of these families.")
    _refuse_model_options(patcher)
    schedule = patcher.get_model_object("model_sampling")
    settings = {"prediction_type": _prediction(schedule, name), "latent_scale": float(model.latent_format.scale_factor)}
    sigmas = schedule.sigmas.detach().to("cpu", torch.float32)
    return Source(Part.MODEL, name, patcher, "diffusion_model.", (), settings, sigmas)


def _prediction(schedule: Any, name: str) -> str:
    """What the model predicts. The class is looked at function by function: samplers for distilled models replace some of them."""
    kind = type(schedule)
    help = "Textual inversion is for Stable Diffusion 1, 2 and XL with their own noise schedule. Link the MODEL from before nodes that change it."
    discrete = isinstance(schedule, sampling.ModelSamplingDiscrete) and kind.timestep is sampling.ModelSamplingDiscrete.timestep
    plain = discrete and kind.calculate_input is sampling.EPS.calculate_input and float(schedule.sigma_data) == 1.0
    if plain and kind.calculate_denoised is sampling.V_PREDICTION.calculate_denoised:
        return "v_prediction"
    if plain and kind.calculate_denoised is sampling.EPS.calculate_denoised:
        return "epsilon"
    bases = " and ".join(base.__name__ for base in kind.__bases__ if base is not torch.nn.Module)
    raise refuse(f"the MODEL {name} samples by {bases}, which is neither epsilon nor v prediction over discrete steps", help)


def _refuse_model_options(patcher: Any) -> None:
    """Changes of the computation that are no weights."""
    options = patcher.model_options
    transformer = options.get("transformer_options", {})
    found = [f"{where}: {', '.join(transformer[where])}" for where in ("patches", "patches_replace") if transformer.get(where)]
    found += [name for name in transformer if name not in (*HARMLESS_OPTIONS, "patches", "patches_replace") and transformer[name]]
    if options.get("model_function_wrapper"):
        found.append("a wrapper around the model (model_function_wrapper)")
    found += [f"a replaced {name}" for name in patcher.object_patches if name != "model_sampling"]
    found += [f"changed weights at run time ({name})" for name in patcher.weight_wrapper_patches]
    found += [f"a wrapper ({kind})" for kind, by_key in patcher.wrappers.items() if any(by_key.values())]
    if found:
        message = f"nodes before this one changed how the MODEL computes: {'; '.join(found)}"
        raise refuse(message, "Link the MODEL from before those nodes. LoRAs and merges may stay: they change weights only.")


def _clip(clip: Any) -> Source:
    model = clip.cond_stage_model
    name = type(model).__name__
    if name not in TEXT_ENCODERS:
        towers = ", ".join(sorted({tensor.split(".", 1)[0] for tensor in model.state_dict()})) or "no weights"
        message = f"the CLIP is a {name} with {towers}; wanted is one of Stable Diffusion 1, 2 or XL"
        raise refuse(message, "Link the CLIP of a checkpoint of one of these families.")
    if clip.apply_hooks_to_conds or clip.use_clip_schedule:
        raise refuse("the CLIP has hooks (Set CLIP Hooks)", "Link the CLIP from before that node.")
    if clip.tokenizer_options:
        names = ", ".join(sorted(clip.tokenizer_options))
        raise refuse(f"the CLIP has tokenizer options: {names}", "Link the CLIP from before the node that set them.")
    settings = {} if clip.layer_idx is None else {"stop_at_clip_layer": int(clip.layer_idx)}
    # ComfyUI's module has a projection even where the model has none, and leaves it as memory was: Stable Diffusion 1 does not project, and of
    # XL's two encoders only the second one's pooled output is used.
    unused = ("clip_l.transformer.text_projection.weight",)
    return Source(Part.CLIP, name, clip.patcher, "", unused, settings)


def _vae(vae: Any) -> Source:
    # ComfyUI reads a file that is no VAE without a word, and says so at its first use.
    vae.throw_exception_if_invalid()
    name = type(vae.first_stage_model).__name__
    if vae.latent_channels != 4 or vae.downscale_ratio != 8:
        message = f"the VAE is a {name} with {vae.latent_channels} latent channels and factor {vae.downscale_ratio}; wanted are 4 and 8"
        raise refuse(message, "Link the VAE of a Stable Diffusion 1, 2 or XL checkpoint.")
    return Source(Part.VAE, name, vae.patcher)


def _refuse_hooks(source: Source) -> None:
    patcher = source.patcher
    what = [f"hooks on {len(patcher.hook_patches)} weights"] if patcher.hook_patches else []
    what += ["forced hooks"] if patcher.forced_hooks else []
    what += [f"injections ({', '.join(patcher.injections)})"] if patcher.injections else []
    if what:
        raise refuse(f"the {source.part.name} has {' and '.join(what)}", "Link it from before the node that made them.")
