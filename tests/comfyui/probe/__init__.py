"""Nodes that only the checks use: they look at what other nodes made, and make inputs of every kind."""

from __future__ import annotations

import gc
import threading

import comfy.model_management
import psutil
import torch


class ProbeCompare:
    """The largest difference between two conditionings, their pooled outputs included."""

    CATEGORY = "probe"
    FUNCTION = "compare"
    RETURN_TYPES = ()
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"a": ("CONDITIONING",), "b": ("CONDITIONING",)}}

    def compare(self, a, b):
        lines = []
        for (left, left_options), (right, right_options) in zip(a, b, strict=True):
            pairs = [("cond", left, right)]
            pairs += [(name, left_options.get(name), right_options.get(name)) for name in ("pooled_output",)]
            for name, one, other in pairs:
                same = one is not None and other is not None and one.shape == other.shape
                difference = float((one - other).abs().max()) if same else float("inf")
                scale = float(other.abs().max()) if other is not None else 0.0
                lines.append(f"{name} {list(one.shape) if one is not None else None} {difference} {scale}")
        return {"ui": {"text": lines}}


class ProbeImages:
    """Pictures as nodes may hand them over: half precision, strides, alpha, batches, several sizes; made inside inference mode."""

    CATEGORY = "probe"
    FUNCTION = "make"
    RETURN_TYPES = ("IMAGE", "STRING", "MASK")
    OUTPUT_IS_LIST = (True, True, True)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"seed": ("INT", {"default": 0})}}

    def make(self, seed):
        torch.manual_seed(seed)
        half = torch.rand(1, 96, 80, 3).half()
        strided = torch.rand(1, 3, 72, 104).movedim(1, -1)[:, :, 4:]
        alpha = torch.rand(1, 64, 64, 4)
        batch = torch.rand(2, 70, 70, 3).bfloat16()
        single = torch.rand(90, 64, 3)
        images = [half, strided, alpha, batch, single]
        masks = [torch.ones(1, *image.shape[-3:-1]) for image in images]
        return images, [f"picture {index}" for index in range(6)], masks


class ProbeMemory:
    """Resident memory, threads and open files of the process, after the node that `after` comes from."""

    CATEGORY = "probe"
    FUNCTION = "look"
    RETURN_TYPES = ()
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"after": ("STRING", {"forceInput": True}), "nonce": ("INT", {"default": 0})}}

    def look(self, after, nonce):
        gc.collect()
        process = psutil.Process()
        loaded = sum(model.model_loaded_memory() for model in comfy.model_management.current_loaded_models if type(model.model).__name__ == "Copy")
        return {"ui": {"text": [f"{process.memory_info().rss} {process.num_threads()} {process.num_fds()} {threading.active_count()} {loaded}"]}}


class ProbeInts:
    """The numbers from 0 on, as a list: the nodes behind it run once for each."""

    CATEGORY = "probe"
    FUNCTION = "make"
    RETURN_TYPES = ("INT",)
    OUTPUT_IS_LIST = (True,)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"count": ("INT", {"default": 3})}}

    def make(self, count):
        return (list(range(count)),)


class ProbeHook:
    """A MODEL with a patch of its computation, a CLIP with hooks, or neither."""

    CATEGORY = "probe"
    FUNCTION = "patch"
    RETURN_TYPES = ("MODEL", "CLIP")

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "clip": ("CLIP",), "what": (["attention", "wrapper", "clip schedule"],)}}

    def patch(self, model, clip, what):
        model, clip = model.clone(), clip.clone()
        if what == "attention":
            model.set_model_attn2_patch(lambda q, k, v, options: (q, k, v))
        elif what == "wrapper":
            model.set_model_unet_function_wrapper(lambda apply, options: apply(options["input"], options["timestep"], **options["c"]))
        else:
            clip.use_clip_schedule = True
        return model, clip


NODE_CLASS_MAPPINGS = {cls.__name__: cls for cls in (ProbeCompare, ProbeImages, ProbeMemory, ProbeInts, ProbeHook)}
