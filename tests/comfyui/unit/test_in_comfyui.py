"""What needs ComfyUI's modules but no server: conversion, copies of models, running out of memory. Skipped where COMFYUI names no checkout."""

from __future__ import annotations

import asyncio
import os
import sys
import unittest
import weakref
from typing import Any
from unittest import mock

from comfyui.native import ErrorKind, Value, VocableError

from unit.support import native

COMFYUI = os.environ.get("COMFYUI")
if COMFYUI:
    sys.path.insert(0, COMFYUI)
    arguments, sys.argv = sys.argv, ["main.py", "--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.model_management
    import comfy.model_patcher
    import server  # noqa: F401
    import torch
    from comfy_execution.utils import CurrentNodeContext

    sys.argv = arguments
    from comfyui import convert, jobs, memory, models, running, sources
    from comfyui.nodes import explaining_node, node_class

needs_comfyui = unittest.skipUnless(COMFYUI, "COMFYUI names no checkout")


def run(what: Any) -> Any:
    """As ComfyUI runs nodes."""
    with torch.inference_mode():
        return asyncio.run(what)


@needs_comfyui
class Conversion(unittest.TestCase):
    def test_pictures_of_every_kind_become_plain_f32(self) -> None:
        with torch.inference_mode():
            plain = torch.rand(1, 4, 5, 3)
            kinds = [plain.half(), torch.rand(1, 3, 4, 5).movedim(1, -1), torch.rand(2, 4, 5, 4), torch.rand(4, 5, 3), plain.double()]
            for image in kinds:
                value = convert.to_value(image, "IMAGE")
                back = convert.from_value(value)
                wanted = image.unsqueeze(0).float() if image.ndim == 3 else image.float()
                self.assertTrue(torch.equal(back, wanted), image.shape)
                self.assertEqual((back.dtype, back.is_contiguous()), (torch.float32, True))

    def test_a_plain_tensor_is_not_copied(self) -> None:
        tensor = torch.rand(3, 4)
        self.assertEqual(convert.tensor_value(tensor).tensor().data, tensor.data_ptr())

    def test_other_types_keep_their_type(self) -> None:
        for dtype in (torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool):
            tensor = torch.ones(2, 3, dtype=dtype)
            back = convert.from_value(convert.tensor_value(tensor))
            self.assertTrue(back.dtype == dtype and torch.equal(back, tensor))
        eight = torch.ones(2, 3).to(torch.float8_e4m3fn)
        self.assertEqual(convert.from_value(convert.tensor_value(eight)).dtype, torch.float16)
        self.assertEqual(convert.from_value(convert.tensor_value(torch.empty(0, 4))).shape, (0, 4))

    def test_maps_lists_and_long_lists_come_back(self) -> None:
        word = [{"name": "<cat>", "clip_l": torch.rand(2, 4), "metadata": {"steps": "7"}}]
        back = convert.from_value(convert.to_value(word))
        self.assertTrue(torch.equal(back[0]["clip_l"], word[0]["clip_l"]))
        self.assertEqual((back[0]["name"], back[0]["metadata"]), ("<cat>", {"steps": "7"}))
        losses = {"loss": [0.5] * 100}
        self.assertEqual(convert.from_value(convert.to_value(losses)), losses)

    def test_a_picture_that_is_not_there_blocks_what_would_show_it(self) -> None:
        found = convert.outputs({"outputs": [{"type": "IMAGE"}]}, [Value.json(None)])
        self.assertEqual(type(found[0]).__name__, "ExecutionBlocker")


class Module(torch.nn.Module if COMFYUI else object):
    """A model of one weight."""

    def __init__(self, weight: Any) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight, requires_grad=False)


@needs_comfyui
class Models(unittest.TestCase):
    def patcher(self, weight: Any) -> Any:
        return comfy.model_patcher.ModelPatcher(Module(weight), torch.device("cpu"), torch.device("cpu"))

    def test_patches_are_applied_and_the_model_is_left_alone(self) -> None:
        patcher = self.patcher(torch.ones(2, 2))
        clone = patcher.clone()
        clone.add_patches({"weight": ("diff", (torch.full((2, 2), 0.5),))})
        for found, wanted in ((patcher, 1.0), (clone, 1.5)):
            weights = dict(sources.Source(native.Part.VAE, "x", found).weights())
            self.assertTrue(torch.equal(weights["weight"], torch.full((2, 2), wanted)))
        self.assertTrue(torch.equal(patcher.model.weight, torch.ones(2, 2)))
        same, other = (sources.Source(native.Part.VAE, "x", found).identity() for found in (patcher, clone))
        self.assertNotEqual(same, other)

    def test_weights_of_gguf_are_refused_by_name(self) -> None:
        class GGMLTensor(torch.Tensor):
            """As ComfyUI-GGUF calls its weights."""

        patcher = self.patcher(torch.ones(2, 2))
        del patcher.model.weight
        patcher.model.weight = torch.ones(2, 2).as_subclass(GGMLTensor)
        patcher.model.state_dict = lambda: {"weight": patcher.model.weight}
        with self.assertRaises(VocableError) as caught:
            sources.refuse_packed(sources.Source(native.Part.VAE, "x", patcher))
        self.assertIn("weight is a GGUF weight", str(caught.exception))

    def test_quantised_weights_are_refused_by_name(self) -> None:
        patcher = self.patcher(torch.ones(2, 2))
        sources.refuse_packed(sources.Source(native.Part.VAE, "x", patcher))
        patcher.model.register_buffer("weight_scale", torch.ones(1))
        with self.assertRaises(VocableError) as caught:
            sources.refuse_packed(sources.Source(native.Part.VAE, "x", patcher))
        self.assertIn("weight_scale", str(caught.exception))

    def test_a_patch_on_eight_bits_is_not_rounded_away(self) -> None:
        patcher = self.patcher(torch.ones(2, 2).to(torch.float8_e4m3fn))
        patcher.add_patches({"weight": ("diff", (torch.full((2, 2), 0.01),))})
        weight = dict(sources.Source(native.Part.VAE, "x", patcher).weights())["weight"]
        self.assertEqual(weight.dtype, torch.float16)
        self.assertTrue(torch.allclose(weight.float(), torch.full((2, 2), 1.01), atol=1e-3))

    def test_comfyui_can_have_its_memory_back(self) -> None:
        gone = []
        copy = memory.Copy(1 << 20, torch.device("cpu"), torch.device("cpu"), lambda: gone.append(True))
        memory.make_room(copy)
        self.assertIn(copy, [loaded.model for loaded in comfy.model_management.current_loaded_models])
        self.assertEqual((copy.model_size(), copy.loaded_size()), (1 << 20, 1 << 20))
        comfy.model_management.unload_all_models()
        self.assertEqual((gone, copy.loaded_size()), ([True], 0))
        self.assertNotIn(copy, [loaded.model for loaded in comfy.model_management.current_loaded_models])

    def test_a_copy_in_ordinary_memory_beside_a_gpu_is_given_back_too(self) -> None:
        gone = []
        gpu = torch.device("cuda", 0)
        copy = memory.Copy(1 << 20, torch.device("cpu"), gpu, lambda: gone.append(True))
        self.assertEqual((copy.model_size(), copy.loaded_size()), (0, 0), "it takes nothing of the GPU")
        loaded = comfy.model_management.LoadedModel(copy)
        loaded.real_model, loaded.model_finalizer = weakref.ref(copy.model), mock.Mock()
        devices = mock.patch.object(comfy.model_management, "get_all_torch_devices", lambda *_: [gpu])
        listed = mock.patch.object(comfy.model_management, "current_loaded_models", [loaded])
        free = mock.patch.object(comfy.model_management, "get_free_memory", lambda *_, **__: 0)
        with devices, listed, free, mock.patch.object(comfy.model_management, "soft_empty_cache"):
            comfy.model_management.unload_all_models()
        self.assertEqual(gone, [True])

    def test_a_copy_goes_with_its_model(self) -> None:
        copy = memory.Copy(8, torch.device("cpu"), torch.device("cpu"), lambda: None)
        memory.make_room(copy)
        before = len(comfy.model_management.current_loaded_models)
        del copy
        self.assertEqual(len(comfy.model_management.current_loaded_models), before - 1)


@needs_comfyui
class Running(unittest.TestCase):
    SPEC = {
        "id": "VocableInspectEmbedding",
        "display_name": "Inspect Embedding",
        "inputs": [{"name": "embedding", "type": "TI_EMBEDDING"}],
        "outputs": [{"type": "STRING"}],
    }

    def word(self) -> Any:
        return [{"name": "<cat>", "clip_l": torch.ones(1, 768), "metadata": {}}]

    def test_a_node_runs(self) -> None:
        output = run(running.run(self.SPEC, {"embedding": self.word()}))
        self.assertIn("<cat>", output.result[0])
        self.assertIn("<cat>", output.ui["text"][0])

    def test_memory_that_runs_out_once_is_tried_again_after_unloading(self) -> None:
        real, calls = native.Job.start, []

        def start(*given: Any) -> Any:
            calls.append(given)
            if len(calls) == 1:
                raise VocableError(ErrorKind.OUT_OF_MEMORY, "memory is short", "Free some.")
            return real(*given)

        with mock.patch.object(running.Job, "start", start), mock.patch.object(comfy.model_management, "unload_all_models") as unload:
            output = run(running.run(self.SPEC, {"embedding": self.word()}))
        self.assertIn("<cat>", output.result[0])
        self.assertEqual((len(calls), unload.call_count), (2, 1))

    def test_memory_that_runs_out_twice_is_an_error(self) -> None:
        short = VocableError(ErrorKind.OUT_OF_MEMORY, "memory is short", "Free some.")
        with mock.patch.object(running.Job, "start", side_effect=short), self.assertRaises(VocableError) as caught:
            run(running.run(self.SPEC, {"embedding": self.word()}))
        self.assertEqual(str(caught.exception), "memory is short\nFree some.")

    def test_interrupt_is_comfyuis_own_exception(self) -> None:
        async def interrupted() -> None:
            picture = convert.to_value(torch.rand(40, 512, 512, 3), "IMAGE")
            inputs = Value.map([("images", Value.list([picture])), ("resolution", Value.json([512]))])
            job = native.Job.start("VocableLoadConceptImages", inputs, {})
            comfy.model_management.interrupt_current_processing()
            await jobs.finish(job, jobs.Show("x"))

        with self.assertRaises(comfy.model_management.InterruptProcessingException):
            run(interrupted())
        self.assertFalse(comfy.model_management.processing_interrupted(), "the flag is taken down")

    def test_one_interrupt_stops_all_runs_of_a_mapped_node(self) -> None:
        ended = []

        async def one(index: int) -> None:
            with CurrentNodeContext("a run", "3", index):
                async with jobs.turn():
                    picture = convert.to_value(torch.rand(40, 512, 512, 3), "IMAGE")
                    inputs = Value.map([("images", Value.list([picture])), ("resolution", Value.json([512]))])
                    try:
                        await jobs.finish(native.Job.start("VocableLoadConceptImages", inputs, {}), jobs.Show("x"))
                        ended.append("done")
                    except comfy.model_management.InterruptProcessingException:
                        ended.append("stopped")
                        raise

        async def all_of_them() -> list[Any]:
            comfy.model_management.interrupt_current_processing()
            return await asyncio.gather(*(one(index) for index in range(3)), return_exceptions=True)

        results = run(all_of_them())
        self.assertTrue(all(isinstance(result, comfy.model_management.InterruptProcessingException) for result in results), results)
        self.assertEqual(ended, ["stopped"], "the others did not begin")

    def test_without_a_library_one_node_explains(self) -> None:
        cls = explaining_node("look here")
        self.assertEqual(cls.GET_SCHEMA().description, "look here")
        with self.assertRaises(RuntimeError) as caught:
            cls.execute()
        self.assertEqual(str(caught.exception), "look here")

    def test_no_copy_is_left(self) -> None:
        models.release_all()
        self.assertEqual(models.in_use(), 0)
        self.assertTrue(callable(node_class))


if __name__ == "__main__":
    unittest.main()
