"""What the pack ships: specs, help pages, texts, and what it is packed into."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest
import zipfile
from pathlib import Path
from unittest import mock

from comfyui import library, specs
from comfyui.tools import generate

from unit.support import PACK, library_nodes, shipped


class Shipped(unittest.TestCase):
    def test_the_specs_are_the_librarys(self) -> None:
        self.assertEqual(shipped(), library_nodes())
        self.assertTrue(all(spec["id"].startswith(specs.PREFIX) for spec in shipped()))

    def test_generated_files_are_as_they_would_be_written_now(self) -> None:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            code = generate.main([])
        self.assertEqual((code, out.getvalue()), (0, ""), "run plugin/comfyui/tools/generate.py --write")

    def test_every_input_and_output_is_explained(self) -> None:
        for spec in shipped():
            for entry in spec["inputs"] + spec["outputs"]:
                self.assertTrue(entry["tooltip"], f"{spec['id']}.{entry['name']}")

    def test_the_version_is_the_workspaces(self) -> None:
        version = re.search(r'^version = "(.+)"$', (PACK / "pyproject.toml").read_text(), re.MULTILINE)
        workspace = re.search(r'^version = "(.+)"$', (PACK.parent.parent / "Cargo.toml").read_text(), re.MULTILINE)
        self.assertEqual(version[1], workspace[1])

    def test_nothing_is_installed_with_it(self) -> None:
        self.assertIn("dependencies = []", (PACK / "pyproject.toml").read_text())
        self.assertFalse((PACK / "requirements.txt").exists() or (PACK / "install.py").exists())

    def test_examples_have_thumbnails_and_known_nodes(self) -> None:
        known = {spec["id"] for spec in shipped()}
        examples = sorted((PACK / "example_workflows").glob("*.json"))
        self.assertTrue(examples)
        for path in examples:
            self.assertTrue(path.with_suffix(".jpg").is_file(), path.name)
            types = {node["type"] for node in json.loads(path.read_text())["nodes"]}
            self.assertLessEqual({name for name in types if name.startswith("Vocable")}, known)


class WhereTheLibraryIs(unittest.TestCase):
    def test_the_named_file_is_the_only_candidate(self) -> None:
        with mock.patch.dict(os.environ, {library.VARIABLE: "/nowhere/lib.so"}):
            self.assertEqual(library.candidates(), [Path("/nowhere/lib.so")])
            with self.assertRaises(library.LibraryMissing) as caught:
                library.find()
        for part in ("/nowhere/lib.so", library.VARIABLE, "cargo build"):
            self.assertIn(part, str(caught.exception))

    def test_names_of_platforms(self) -> None:
        names = [library.file_name(platform) for platform in ("linux", "darwin", "win32")]
        self.assertEqual(names, ["libvocable_plugin.so", "libvocable_plugin.dylib", "vocable_plugin.dll"])

    def test_a_link_to_the_folder_leads_to_the_repositorys_build(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            link = Path(folder) / "some-pack"
            try:
                link.symlink_to(PACK, target_is_directory=True)
            except OSError as error:
                self.skipTest(f"this account may not make links: {error}")
            code = f"import sys; sys.path.insert(0, {folder!r}); m = __import__('some-pack.library', fromlist=['x']); print(m.candidates()[1])"
            environment = {key: value for key, value in os.environ.items() if key not in (library.VARIABLE, "CARGO_TARGET_DIR")}
            found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout.strip()
        self.assertEqual(Path(found), PACK.parent.parent / "target" / "release" / library.file_name())


class Packed(unittest.TestCase):
    def test_zip_and_wheel_hold_the_folder_and_the_library_and_nothing_else(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            fake = Path(folder) / library.file_name()
            fake.write_bytes(b"library")

            def build(name: str) -> list[Path]:
                out = Path(folder) / name
                command = [sys.executable, str(PACK / "tools" / "package.py"), "--library", str(fake), "--out", str(out), "--platform", "any_test"]
                subprocess.run(command, check=True, capture_output=True)
                return sorted(out.iterdir())

            wheel, archive, registry = sorted(build("one"), key=lambda path: (path.suffix, -len(path.name)))
            self.assertEqual([path.read_bytes() for path in sorted(build("two"))], [path.read_bytes() for path in sorted([wheel, archive, registry])])
            of_the_registry = zipfile.ZipFile(registry)
            self.assertFalse([name for name in of_the_registry.namelist() if "/bin/" in name])
            self.assertRegex(of_the_registry.read("vocable/requirements.txt").decode(), r"^vocable-comfyui==\d")
            names = zipfile.ZipFile(archive).namelist()
            for name in ("__init__.py", "specs.json", "web/docs/VocableTrainTextualInversion.md", "LICENSE-MIT", f"bin/{fake.name}"):
                self.assertIn(f"vocable/{name}", names)
            self.assertFalse([name for name in names if "tools" in name or "__pycache__" in name])
            names = zipfile.ZipFile(wheel).namelist()
            self.assertIn("vocable_comfyui/__init__.py", names)
            site = Path(folder) / "site"
            zipfile.ZipFile(wheel).extractall(site)
            self.assertEqual(self.found_by(PACK.parent, "comfyui", str(site)), (site / "vocable_comfyui" / "bin" / fake.name).resolve())
            self.assertTrue(any(name.endswith("RECORD") for name in names))
            installed = Path(folder) / "unpacked"
            zipfile.ZipFile(archive).extractall(installed)
            self.assertEqual(self.found_by(installed, "vocable"), (installed / "vocable" / "bin" / fake.name).resolve())

    def found_by(self, parent: Path, package: str, more: str = "") -> Path:
        """The library that the pack in `parent` finds, in a Python that has `more` on its path."""
        code = f"import sys; sys.path.insert(0, {str(parent)!r}); from {package} import library; print(library.find())"
        environment = {key: value for key, value in os.environ.items() if key != library.VARIABLE} | {"PYTHONPATH": more}
        found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout.strip()
        return Path(found).resolve()


if __name__ == "__main__":
    unittest.main()
