"""The same workflow, seed and checkpoint in ComfyUI and in `vocable run`, at full size:

    cargo build --release
    pip install torch diffusers transformers safetensors pillow, and ComfyUI's requirements.txt
    python tests/golden/full_size_pictures.py --comfyui COMFYUI'S_FOLDER --work FOLDER [--families sd15 sd21 sdxl]

Makes random checkpoints of true size in 16 bit (2.1, 2.6 and 7 GB; they stay in FOLDER), runs examples/workflows/paint.json with 256 px on the
CPU in both programs and once more with another seed, and prints a table in markdown: how far the pictures are apart, on average and at most,
in 255ths. SDXL takes 16 GB of memory. The weights are drawn so that signals keep their size; `CONTRAST` makes pictures of them.
"""
import argparse
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

from families import names
from families.model import draw

REPOSITORY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
PROMPT = "a (watercolor:1.2) of a red fox\\(s\\), [blurred] trees in the background"
# What the decoder's last convolution is multiplied by.
CONTRAST = .4
# As in families.py: what attention and feed-forward add, without a norm behind them in SDXL's contexts.
ADDED = (".out_proj.", ".fc2.", ".c_proj.", ".to_out.0.", ".ff.net.2.")
# The norm by whose spread ComfyUI knows a v-prediction model of Stable Diffusion 2.
TELLTALE = "output_blocks.11.1.transformer_blocks.0.norm1.bias"
WIDTHS = (320, 640, 1280, 1280)
SD2 = dict(block_out_channels=WIDTHS, cross_attention_dim=1024, attention_head_dim=(5, 10, 20, 20), use_linear_projection=True)
SDXL = dict(
    block_out_channels=WIDTHS[:3], cross_attention_dim=2048, attention_head_dim=(5, 10, 20), use_linear_projection=True,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), transformer_layers_per_block=[1, 2, 10],
    addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816)


def clip_l(prefix):
    with torch.device("meta"):
        model = CLIPTextModel(CLIPTextConfig(vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
                                             num_attention_heads=12))
    # Some versions of transformers leave the first part of the name out.
    return {f"{prefix}text_model.{name.removeprefix('text_model.')}": list(tensor.shape) for name, tensor in model.state_dict().items()}


FAMILIES = {
    "sd15": (dict(block_out_channels=WIDTHS, cross_attention_dim=768, attention_head_dim=8), lambda: clip_l("cond_stage_model.transformer.")),
    "sd21": (SD2, lambda: names.open_clip("cond_stage_model.model.", 49408, 1024, 24)),
    "sdxl": (SDXL, lambda: clip_l("conditioner.embedders.0.transformer.") | names.open_clip("conditioner.embedders.1.model.", 49408, 1280, 32)),
}


def shapes(family):
    unet, text = FAMILIES[family]
    with torch.device("meta"):
        unet = UNet2DConditionModel(layers_per_block=2, **unet).state_dict()
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=2, latent_channels=4).state_dict()
    found = {"model.diffusion_model." + names.unet_name(name, unet): list(tensor.shape) for name, tensor in unet.items()}
    for name, tensor in vae.items():
        name = names.vae_name(name, 4)
        # 1 x 1 convolutions there.
        found["first_stage_model." + name] = list(tensor.shape) + [1, 1] * ("mid.attn_1" in name and tensor.dim() == 2)
    return found | text()


def make(family, path):
    if os.path.exists(path):
        return
    tensors = {}
    for name, shape in shapes(family).items():
        by = CONTRAST if name.startswith("first_stage_model.decoder.conv_out") else 1
        if name.endswith(TELLTALE) and family == "sd21":
            by = 2
        elif family == "sdxl" and name.endswith(".weight") and any(part in name for part in ADDED):
            by = .3
        tensors[name] = (draw(name, shape) * by).half()
    save_file(tensors, path + ".part")
    os.replace(path + ".part", path)


def workflow(family, seed, steps):
    with open(os.path.join(REPOSITORY, "examples", "workflows", "paint.json")) as file:
        graph = json.load(file)
    graph["1"]["inputs"]["ckpt_name"] = f"{family}.safetensors"
    graph["2"]["inputs"]["text"] = PROMPT
    graph["3"]["inputs"]["text"] = "a low-contrast photograph"
    graph["4"]["inputs"] |= dict(width=256, height=256, batch_size=1)
    graph["5"]["inputs"] |= dict(seed=seed, steps=steps)
    graph["7"]["inputs"]["filename_prefix"] = f"{family}_{seed}"
    return graph


class ComfyUI:
    """A running ComfyUI whose checkpoints and results lie in `work`."""

    def __init__(self, folder, work, port):
        self.url, self.output = f"http://127.0.0.1:{port}", os.path.join(work, "comfyui")
        with open(os.path.join(work, "paths.yaml"), "w") as file:
            file.write(f"vocable:\n  base_path: {work}\n  checkpoints: models/checkpoints\n")
        self.log = open(os.path.join(work, "comfyui.log"), "a")
        self.process = subprocess.Popen(
            [sys.executable, "main.py", "--cpu", "--port", str(port), "--output-directory", self.output, "--extra-model-paths-config",
             os.path.join(work, "paths.yaml"), "--disable-all-custom-nodes", "--database-url", "sqlite:///:memory:"],
            cwd=folder, stdout=self.log, stderr=self.log)
        for _ in range(240):
            try:
                self.version = self.ask("/system_stats")["system"]["comfyui_version"]
                return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(.5)
        raise SystemExit(f"ComfyUI does not answer; see {self.log.name}")

    def ask(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def run(self, graph):
        run = self.ask("/prompt", {"prompt": graph})["prompt_id"]
        while run not in (history := self.ask(f"/history/{run}")):
            time.sleep(1)
        assert history[run]["status"]["status_str"] == "success", history[run]["status"]
        image = history[run]["outputs"]["7"]["images"][0]
        return os.path.join(self.output, image["subfolder"], image["filename"])

    def close(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()


def ours(graph, work):
    """What `vocable run` makes of it."""
    path = os.path.join(work, "workflow.json")
    with open(path, "w") as file:
        json.dump(graph, file)
    output = os.path.join(work, "vocable")
    program = os.path.join(REPOSITORY, "target", "release", "vocable")
    events = subprocess.run(
        [program, "run", path, "--models", os.path.join(work, "models"), "--output", output, "--events", "json"], check=True,
        capture_output=True, text=True).stdout.splitlines()
    images = [event["data"]["output"]["images"][0] for event in map(json.loads, events)
              if event["type"] == "executed" and "images" in event["data"]["output"]]
    return os.path.join(output, images[0]["subfolder"], images[0]["filename"])


def pixels(path):
    return numpy.asarray(Image.open(path).convert("RGB")).astype(float)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--comfyui", required=True)
    options.add_argument("--work", required=True)
    options.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    options.add_argument("--steps", type=int, default=6)
    options.add_argument("--port", type=int, default=8199)
    a = options.parse_args()
    a.work = os.path.abspath(a.work)
    checkpoints = os.path.join(a.work, "models", "checkpoints")
    os.makedirs(checkpoints, exist_ok=True)
    rows, bad = [], []
    for family in a.families:
        # In a process of its own, whose memory is gone afterwards.
        maker = multiprocessing.get_context("spawn").Process(target=make, args=(family, os.path.join(checkpoints, f"{family}.safetensors")))
        maker.start()
        maker.join()
        if maker.exitcode:
            raise SystemExit(f"no checkpoint {family} was made")
        graphs = [workflow(family, seed, a.steps) for seed in (7, 8)]
        # One program after the other: both hold the whole model.
        comfyui = ComfyUI(a.comfyui, a.work, a.port)
        try:
            theirs = [pixels(comfyui.run(graph)) for graph in graphs]
        finally:
            comfyui.close()
        mine = [pixels(ours(graph, a.work)) for graph in graphs]
        apart = [abs(x - y) for x, y in zip(theirs, mine)]
        mean, most = max(d.mean() for d in apart), max(d.max() for d in apart)
        spread, seeds = min(x.std() for x in theirs), abs(theirs[0] - theirs[1]).mean()
        rows.append(f"| {family} | {spread:.1f} | {mean:.4f} | {most:.0f} | {seeds:.1f} |")
        print(rows[-1], flush=True)
        if spread < 20 or mean > 1 or seeds < 10 * mean:
            bad.append(family)
    print(f"\nComfyUI {comfyui.version}, torch {torch.__version__}, {platform.machine()}, {a.steps} steps of dpmpp_2m with karras, 256 px\n")
    print("| checkpoint | standard deviation | apart on average | at most | another seed |\n|---|---|---|---|---|")
    print("\n".join(rows))
    if bad:
        raise SystemExit(f"not as it should be: {', '.join(bad)}")


if __name__ == "__main__":
    main()
