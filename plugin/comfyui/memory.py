"""How much memory there is, and how ComfyUI gets back what the pack holds."""

from __future__ import annotations

from collections.abc import Callable

import comfy.model_management
import comfy.model_patcher
import psutil
import torch

GIB = 1 << 30


def state(device: torch.device) -> str:
    """The memory of the process and what is free, for the log."""
    resident = psutil.Process().memory_info().rss / GIB
    free = psutil.virtual_memory().available / GIB
    text = f"process {resident:.2f} GiB, free {free:.2f} GiB"
    if device.type != "cpu":
        text += f", free on {device} {comfy.model_management.get_free_memory(device) / GIB:.2f} GiB"
    return text


class VocableCopy(torch.nn.Module):
    """Stands for weights that lie in the library. ComfyUI's log calls it by this name."""


class Copy(comfy.model_patcher.ModelPatcher):
    """The library's copy of a model, as ComfyUI's memory management sees it: a loaded model of a size, which it may ask to go.

    ComfyUI has no call-back for "free your memory", but it keeps a list of all loaded models and unloads them from there: when another model
    needs the room, when the user presses Unload Models, and when memory ran out. So the copy stands in that list like any other model.

    ComfyUI asks only the models of the device that it computes on. So a copy in ordinary memory stands there, too, beside a GPU, but takes none of its memory.
    """

    def __init__(self, size: int, device: torch.device, listed_on: torch.device, release: Callable[[], None]) -> None:
        self.bytes, self.release, self.held = size, release, True
        self.there = size if device == listed_on else 0
        super().__init__(VocableCopy(), load_device=listed_on, offload_device=torch.device("cpu"), size=self.there)

    def model_size(self) -> int:
        """All of it, if it lies on the device."""
        return self.there

    def loaded_size(self) -> int:
        """All of it, or nothing."""
        return self.there if self.held else 0

    def partially_load(self, device_to: torch.device, extra_memory: int = 0, force_patch_weights: bool = False) -> int:
        """Nothing to do: the library loads."""
        return 0

    def partially_unload(self, device_to: torch.device, memory_to_free: int = 0, force_patch_weights: bool = False) -> int:
        """It goes as a whole."""
        return self._go()

    def detach(self, unpatch_all: bool = True) -> torch.nn.Module:
        """ComfyUI wants the memory back."""
        self._go()
        return self.model

    def _go(self) -> int:
        if not self.held:
            return 0
        self.held = False
        self.release()
        return self.there


def make_room(copy: Copy) -> None:
    """Enters the copy in ComfyUI's list; on a GPU ComfyUI first unloads what is in the way."""
    comfy.model_management.load_models_gpu([copy])


def is_short_of(size: int) -> bool:
    """Whether another `size` bytes of ordinary memory would leave the machine less than a tenth of them to spare."""
    return psutil.virtual_memory().available < size * 1.1


def free_all() -> None:
    """Has ComfyUI give back all memory that its models hold, the library's copies included."""
    comfy.model_management.unload_all_models()
    comfy.model_management.soft_empty_cache()
