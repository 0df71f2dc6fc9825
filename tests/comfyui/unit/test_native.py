"""The library by ctypes: values, ownership, jobs, errors."""

from __future__ import annotations

import ctypes
import gc
import itertools
import tempfile
import threading
import time
import unittest
from pathlib import Path

from comfyui.native import DType, ErrorKind, EventKind, Job, Kind, Tensor, Value, VocableError

from unit.support import native


def lend(numbers: list[float], shape: list[int]) -> tuple[Value, ctypes.Array]:
    """A tensor of f32 that the library borrows."""
    memory = (ctypes.c_float * len(numbers))(*numbers)
    sizes = (ctypes.c_int64 * len(shape))(*shape)
    view = Tensor(ctypes.addressof(memory), 1, 0, len(shape), DType(2, 32, 1), sizes, None, 0)
    return Value.lend(view, ctypes.sizeof(memory), (memory, sizes)), memory


def is_lent(memory: ctypes.Array) -> bool:
    """Whether the library still borrows it."""
    return any(owner[0] is memory for _, owner in list(native._lent.values()))


def wait(job: Job) -> list[int]:
    """The kinds of the events until the job is done."""
    kinds = []
    while not kinds or kinds[-1] != EventKind.DONE:
        event = job.poll(1000)
        if event is not None:
            kinds.append(event.kind)
    return kinds


class Values(unittest.TestCase):
    def test_what_json_can_say_comes_back(self) -> None:
        for thing in (None, True, -3, 2**64 - 1, 2.5, "Größe", [1, "a"], {"a": [None]}):
            self.assertEqual(Value.json(thing).to_json(), thing)
        self.assertEqual(Value.json(2**64 - 1).kind, Kind.INT)

    def test_lists_and_maps_share_their_items(self) -> None:
        item = Value.json("a")
        both = Value.map([("list", Value.list([item, item])), ("one", item)])
        item.free()
        self.assertEqual(both.to_json(), {"list": ["a", "a"], "one": "a"})
        self.assertEqual(both.names(), ["list", "one"])
        self.assertEqual(len(next(iter(both))), 2)

    def test_lent_memory_is_held_as_long_as_it_is_used(self) -> None:
        value, memory = lend([1, 2, 3, 4, 5, 6], [2, 3])
        self.assertEqual(value.to_json(), {"tensor": [2, 3], "dtype": "f32"})
        self.assertEqual(value.tensor().data, ctypes.addressof(memory), "nothing is copied")
        both = Value.list([value])
        value.free()
        gc.collect()
        self.assertTrue(is_lent(memory))
        both.free()
        self.assertFalse(is_lent(memory))

    def test_a_tensor_that_is_too_short_is_refused_and_not_held(self) -> None:
        memory = (ctypes.c_float * 2)()
        view = Tensor(ctypes.addressof(memory), 1, 0, 1, DType(2, 32, 1), (ctypes.c_int64 * 1)(4), None, 0)
        with self.assertRaises(VocableError):
            Value.lend(view, 8, (memory,))
        self.assertFalse(is_lent(memory))

    def test_freeing_twice_is_harmless(self) -> None:
        value = Value.json(1)
        value.free()
        value.free()


class Jobs(unittest.TestCase):
    def test_a_node_runs(self) -> None:
        picture, _ = lend([0.5] * (40 * 40 * 3), [1, 40, 40, 3])
        inputs = Value.map([("images", Value.list([picture])), ("resolution", Value.json([32]))])
        job = Job.start("VocableLoadConceptImages", inputs, {})
        self.assertEqual(wait(job)[-1], EventKind.DONE)
        results, ui = job.take_outputs()
        concept, preview, count = results
        self.assertEqual((concept.kind, concept.handle_type()), (Kind.HANDLE, "TI_CONCEPT"))
        self.assertEqual(preview.to_json()["tensor"], [1, 32, 32, 3])
        self.assertEqual(count.to_json(), 1)
        self.assertIn("1 training picture", ui["text"][0])
        with self.assertRaises(VocableError):
            job.take_outputs()

    def test_errors_say_what_to_do(self) -> None:
        job = Job.start("VocableLoadConceptImages", Value.map([]), {})
        wait(job)
        with self.assertRaises(VocableError) as caught:
            job.take_outputs()
        self.assertIs(caught.exception.kind, ErrorKind.INVALID_INPUT)
        self.assertIn("there are no pictures", str(caught.exception))
        self.assertIn("Choose a folder", str(caught.exception))

    def test_an_unknown_node_is_told_by_name(self) -> None:
        with self.assertRaises(VocableError) as caught:
            Job.start("VocableNoSuchNode", Value.map([]), {})
        self.assertIn("VocableNoSuchNode", str(caught.exception))

    def test_a_job_that_is_cancelled_ends_at_once(self) -> None:
        picture, _ = lend([0.5] * (512 * 512 * 3), [1, 512, 512, 3])
        inputs = Value.map([("images", Value.list([picture] * 40)), ("resolution", Value.json([512]))])
        job = Job.start("VocableLoadConceptImages", inputs, {})
        started = time.monotonic()
        job.cancel()
        wait(job)
        self.assertLess(time.monotonic() - started, 1.0)

    def test_python_goes_on_while_a_call_waits(self) -> None:
        picture, _ = lend([0.5] * (256 * 256 * 3), [1, 256, 256, 3])
        inputs = Value.map([("images", Value.list([picture] * 20)), ("resolution", Value.json([256]))])
        job = Job.start("VocableLoadConceptImages", inputs, {})
        ticks: list[float] = []
        done = threading.Event()

        def tick() -> None:
            while not done.wait(0.001):
                ticks.append(time.monotonic())

        thread = threading.Thread(target=tick)
        thread.start()
        wait(job)
        done.set()
        thread.join()
        gaps = [later - earlier for earlier, later in itertools.pairwise(ticks)]
        self.assertLess(max(gaps, default=0.0), 0.2)


class BeforeARun(unittest.TestCase):
    def test_literals_are_looked_at(self) -> None:
        with self.assertRaises(VocableError) as caught:
            native.validate("VocableSaveEmbedding", Value.json({"filename": "two words"}), {"linked": ["embedding"]})
        self.assertIn("two words", str(caught.exception))
        native.validate("VocableSaveEmbedding", Value.json({"filename": "word"}), {"linked": ["embedding"]})

    def test_fingerprints_follow_the_files(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            pictures = Path(folder) / "pet"
            pictures.mkdir()
            (pictures / "a.png").write_bytes(b"x")
            host = {"folders": {"input": [folder]}, "linked": []}

            def stamp() -> str:
                return native.fingerprint("VocableLoadConceptImages", Value.json({"folder": "pet"}), host)

            before = stamp()
            self.assertEqual(stamp(), before)
            (pictures / "b.png").write_bytes(b"y")
            self.assertNotEqual(stamp(), before)


if __name__ == "__main__":
    unittest.main()
