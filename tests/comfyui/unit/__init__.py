"""The pack's own tests: with the real library, without ComfyUI.

The pack is a package here that is called `comfyui`; in `custom_nodes` it may be called anything.
"""

import sys
from pathlib import Path

PACK = Path(__file__).resolve().parents[3] / "plugin" / "comfyui"
sys.path.insert(0, str(PACK.parent))
