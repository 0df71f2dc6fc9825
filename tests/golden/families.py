"""Makes tests/golden/families.json and families.safetensors: for each family of single-file checkpoints a model of true structure and tiny
widths, the names and shapes of its file, and what PyTorch computes with it.

    pip install torch diffusers transformers safetensors      (made with torch 2.15.0, diffusers 0.42.1, transformers 5.23.0)
    python tests/golden/families.py

The weights are not stored: both sides draw them from torch's generator, seeded with the CRC-32 of the tensor's name (see `draw`). The ldm
names are written here block by block, and diffusers' own converters (`loaders/single_file_utils.py`) must turn them into exactly the names of
the models that compute the goldens.
"""
import json
import os
import zlib

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.loaders import single_file_utils as peer
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

HERE = os.path.dirname(os.path.abspath(__file__))
WIDTHS = (32, 32, 64, 64)
TEXT = 64
VOCABULARY = 600
torch.use_deterministic_algorithms(True)


def draw(name, shape):
    """Norm weights about 1, biases small, tables and matrices so that a signal keeps its size."""
    r = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    if "embedding" in name:
        return r * .1
    if len(shape) == 1:
        return r * .2 + 1 if name.endswith(".weight") else r * .2
    fan = 1
    for n in shape[1:]:
        fan *= n
    return r * torch.tensor(1.5 / fan ** .5)


def unet_name(name):
    """The ldm name of a diffusers name."""
    def resnet(path, rest):
        for a, b in (("norm1", "in_layers.0"), ("conv1", "in_layers.2"), ("time_emb_proj", "emb_layers.1"), ("norm2", "out_layers.0"),
                     ("conv2", "out_layers.3"), ("conv_shortcut", "skip_connection")):
            rest = rest.replace(a, b)
        return f"{path}.0.{rest}"
    part, *rest = name.split(".")
    if part == "down_blocks":
        level, kind, i = int(rest[0]), rest[1], int(rest[2])
        tail = ".".join(rest[3:])
        if kind == "downsamplers":
            return f"input_blocks.{3 * level + 3}.0.op.{rest[-1]}"
        block = f"input_blocks.{3 * level + 1 + i}"
        return resnet(block, tail) if kind == "resnets" else f"{block}.1.{tail}"
    if part == "up_blocks":
        level, kind, i = int(rest[0]), rest[1], int(rest[2])
        tail = ".".join(rest[3:])
        if kind == "upsamplers":
            return f"output_blocks.{3 * level + 2}.{1 if level == 0 else 2}.conv.{rest[-1]}"
        block = f"output_blocks.{3 * level + i}"
        return resnet(block, tail) if kind == "resnets" else f"{block}.1.{tail}"
    if part == "mid_block":
        tail = ".".join(rest[2:])
        if rest[0] == "attentions":
            return f"middle_block.1.{tail}"
        return resnet("middle_block", tail).replace("middle_block.0", f"middle_block.{2 * int(rest[1])}", 1)
    for a, b in (("time_embedding.linear_1", "time_embed.0"), ("time_embedding.linear_2", "time_embed.2"), ("conv_in", "input_blocks.0.0"),
                 ("conv_norm_out", "out.0"), ("conv_out", "out.2")):
        if name.startswith(a + "."):
            return b + name[len(a):]
    raise KeyError(name)


def vae_name(name):
    name = name.replace("mid_block.attentions.0.to_q", "mid.attn_1.q").replace("mid_block.attentions.0.to_k", "mid.attn_1.k")
    name = name.replace("mid_block.attentions.0.to_v", "mid.attn_1.v").replace("mid_block.attentions.0.to_out.0", "mid.attn_1.proj_out")
    name = name.replace("mid_block.attentions.0.group_norm", "mid.attn_1.norm").replace("conv_norm_out", "norm_out")
    name = name.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2").replace("conv_shortcut", "nin_shortcut")
    part = name.split(".")
    if len(part) > 2 and part[1] in ("down_blocks", "up_blocks"):
        side = part[1].split("_")[0]
        level = int(part[2]) if side == "down" else 3 - int(part[2])
        tail = ".".join(part[3:]).replace("resnets.", "block.").replace(f"{side}samplers.0.conv", f"{side}sample.conv")
        return f"{part[0]}.{side}.{level}.{tail}"
    return name


def make(family, in_channels, prediction, heads, linear, open_clip):
    unet = UNet2DConditionModel(sample_size=8, in_channels=in_channels, block_out_channels=WIDTHS, layers_per_block=2, cross_attention_dim=TEXT,
                                attention_head_dim=heads, use_linear_projection=linear)
    text = CLIPTextModel(CLIPTextConfig(
        vocab_size=VOCABULARY, hidden_size=TEXT, intermediate_size=4 * TEXT, num_hidden_layers=3, num_attention_heads=1, max_position_embeddings=77,
        hidden_act="gelu" if open_clip else "quick_gelu", projection_dim=TEXT, bos_token_id=598, eos_token_id=599, pad_token_id=599))
    vae = AutoencoderKL(block_out_channels=WIDTHS, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
                        layers_per_block=2, latent_channels=4, sample_size=64)

    # The file: names, shapes and numbers.
    shapes = {}
    for k, v in unet.state_dict().items():
        shapes["model.diffusion_model." + unet_name(k)] = list(v.shape)
    for k, v in vae.state_dict().items():
        square = "mid.attn_1" in vae_name(k) and v.dim() == 2
        shapes["first_stage_model." + vae_name(k)] = list(v.shape) + [1, 1] * square
    stem = "" if hasattr(text, "text_model") else "text_model."
    if open_clip:
        p = "cond_stage_model.model."
        shapes |= {p + "token_embedding.weight": [VOCABULARY, TEXT], p + "positional_embedding": [77, TEXT], p + "text_projection": [TEXT, TEXT],
                   p + "ln_final.weight": [TEXT], p + "ln_final.bias": [TEXT]}
        for i in range(3):
            b = p + f"transformer.resblocks.{i}."
            shapes |= {b + "attn.in_proj_weight": [3 * TEXT, TEXT], b + "attn.in_proj_bias": [3 * TEXT], b + "attn.out_proj.weight": [TEXT, TEXT],
                       b + "attn.out_proj.bias": [TEXT], b + "mlp.c_fc.weight": [4 * TEXT, TEXT], b + "mlp.c_fc.bias": [4 * TEXT],
                       b + "mlp.c_proj.weight": [TEXT, 4 * TEXT], b + "mlp.c_proj.bias": [TEXT]}
            shapes |= {b + f"ln_{j}.{w}": [TEXT] for j in (1, 2) for w in ("weight", "bias")}
    else:
        shapes |= {"cond_stage_model.transformer." + stem + k: list(v.shape) for k, v in text.state_dict().items() if "position_ids" not in k}
    file = {k: draw(k, s) for k, s in shapes.items()}
    if prediction == "v_prediction":
        # The norm by whose spread ComfyUI knows a v model.
        file["model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"] *= 2
    elif open_clip:
        file["model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"] *= .1

    # diffusers turns the file into its own models.
    ours = peer.convert_ldm_unet_checkpoint(dict(file), dict(unet.config))
    unet.load_state_dict(ours, strict=True)
    vae.load_state_dict(peer.convert_ldm_vae_checkpoint(dict(file), dict(vae.config)), strict=True)
    if open_clip:
        found = peer.convert_open_clip_checkpoint(text, dict(file))
        found = {k.removeprefix("" if hasattr(text, "text_model") else "text_model."): v for k, v in found.items() if "text_projection" not in k}
    else:
        found = {k.removeprefix("cond_stage_model.transformer." + stem): v for k, v in file.items() if k.startswith("cond_stage_model.transformer.")}
    missing, extra = text.load_state_dict(found, strict=False)
    assert not extra and all("position_ids" in k for k in missing), (missing, extra)
    for model in (unet, vae, text):
        model.eval().requires_grad_(False)

    # Goldens.
    g = {}
    torch.manual_seed(5)
    ids = torch.randint(0, 590, (2, 77))
    ids[:, 0], ids[0, 9:], ids[1, 20:] = 598, 599, 599
    if open_clip:
        ids[0, 10:], ids[1, 21:] = 0, 0
    out = text(ids, output_hidden_states=True)
    inner = text.text_model if hasattr(text, "text_model") else text
    g["text.ids"], g["text.last"], g["text.penultimate"] = ids, out.last_hidden_state, inner.final_layer_norm(out.hidden_states[-2])
    g["text.pooled"] = torch.stack([out.last_hidden_state[0, 9], out.last_hidden_state[1, 20]])
    x, t, context = torch.randn(2, in_channels, 16, 24), torch.tensor([7, 931]), torch.randn(2, 77, TEXT)
    g["unet.x"], g["unet.t"], g["unet.context"], g["unet.y"] = x, t, context, unet(x, t, context).sample
    pixels = torch.rand(1, 3, 64, 48) * 2 - 1
    posterior = vae.encode(pixels).latent_dist
    g["vae.pixels"], g["vae.mean"], g["vae.std"] = pixels, posterior.mean, posterior.std
    g["vae.decoded"] = vae.decode(posterior.mean).sample

    # Latents of 16 x 16: at 8 x 8 the deepest norm would see groups of two numbers, and f32 and f64 would part in torch itself.
    # Five steps of training; the extra channels of an inpainting model are mask and masked picture, all zero.
    sched = DDPMScheduler(beta_start=.00085, beta_end=.012, beta_schedule="scaled_linear", prediction_type=prediction)
    table = inner.embeddings.token_embedding
    vectors = torch.nn.Parameter(table.weight.data[[17, 33]].clone())
    ids = torch.tensor([[598, 5, VOCABULARY, VOCABULARY + 1, 8, 599] + [0 if open_clip else 599] * 71] * 2)
    forward = table.forward

    def encode():
        table.forward = lambda i: F.embedding(i, torch.cat([table.weight, vectors]))
        try:
            out = text(ids, output_hidden_states=True)
            return inner.final_layer_norm(out.hidden_states[-2]) if open_clip else out.last_hidden_state
        finally:
            table.forward = forward
    z, e, ts = torch.randn(5, 2, 4, 16, 16), torch.randn(5, 2, 4, 16, 16), torch.randint(0, 1000, (5, 2))
    # An eps near the gradient: with the usual one, entries of almost no gradient would step by their sign, which the order of a sum decides.
    opt, steps = torch.optim.AdamW([vectors], lr=5e-3, eps=1e-2), []
    for s in range(5):
        noisy = sched.add_noise(z[s], e[s], ts[s])
        extra = torch.zeros(2, in_channels - 4, 16, 16)
        target = e[s] if prediction == "epsilon" else sched.get_velocity(z[s], e[s], ts[s])
        loss = F.mse_loss(unet(torch.cat([noisy, extra], 1), ts[s], encode()).sample, target)
        opt.zero_grad()
        loss.backward()
        if s == 0:
            g["train.gradient"], g["train.start"] = vectors.grad.clone(), vectors.detach().clone()
        opt.step()
        steps.append(vectors.detach().clone())
    g |= {"train.ids": ids, "train.z": z, "train.noise": e, "train.t": ts, "train.trajectory": torch.stack(steps)}
    print(family, len(shapes), "tensors", "picture std", round(g["vae.decoded"].std().item(), 3), "unet std", round(g["unet.y"].std().item(), 3),
          "gradient", g["train.gradient"].norm().item())
    scales = {"v_prediction": 2., "epsilon": .1}
    special = {"model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias": scales[prediction]} if open_clip else {}
    return dict(shapes=shapes, scaled=special, prediction=prediction), {f"{family}.{k}": v for k, v in g.items()}


files, goldens = {}, {}
for row in (("sd1", 4, "epsilon", 8, False, False), ("sd1_inpainting", 9, "epsilon", 8, False, False),
            ("sd2", 4, "epsilon", (1, 1, 1, 1), True, True), ("sd2_v", 4, "v_prediction", (1, 1, 1, 1), True, True)):
    files[row[0]], some = make(*row)
    goldens |= some
with open(os.path.join(HERE, "families.json"), "w") as f:
    json.dump(files, f, separators=(",", ":"))
save_file({k: v.detach().to(torch.int64 if v.dtype == torch.int64 else torch.float32).contiguous() for k, v in goldens.items()},
          os.path.join(HERE, "families.safetensors"))
