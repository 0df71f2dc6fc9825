"""Makes tests/golden/tiny (a random pipeline of the structure of Stable Diffusion 1, in diffusers' format) and tests/golden/tiny.safetensors
(inputs, and what PyTorch computes from them: hidden states, predictions, latents, pictures, gradients and a training trajectory).

    pip install torch diffusers transformers safetensors      (made with torch 2.15.0, diffusers 0.42.1, transformers 5.23.0)
    python tests/golden/tiny_model.py
"""
import json, os, shutil
import torch, torch.nn.functional as F
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "tiny")
torch.manual_seed(7)
torch.use_deterministic_algorithms(True)


def byte_characters():
    """The printable stand-ins of the 256 bytes, in CLIP's order."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in shown]
    return [chr(b) for b in shown] + [chr(256 + i) for i in range(len(rest))]


def write_tokenizer(folder):
    os.makedirs(folder)
    merges = ["c a", "ca t</w>", "d o", "do g</w>", "p h", "ph o", "pho t", "phot o</w>", "o f</w>", "o n</w>"]
    characters = byte_characters()
    tokens = characters + [c + "</w>" for c in characters] + [m.replace(" ", "") for m in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    json.dump({t: i for i, t in enumerate(tokens)}, open(f"{folder}/vocab.json", "w"), ensure_ascii=True)
    open(f"{folder}/merges.txt", "w").write("#version: 0.2\n" + "\n".join(merges) + "\n")
    json.dump(dict(bos_token="<|startoftext|>", eos_token="<|endoftext|>", pad_token="<|endoftext|>", unk_token="<|endoftext|>",
                   model_max_length=77, tokenizer_class="CLIPTokenizer"), open(f"{folder}/tokenizer_config.json", "w"))
    return {t: i for i, t in enumerate(tokens)}


def spread(model, scale=2.0):
    """Random weights leave a network nearly constant: norms and biases away from 1 and 0 make every part show in the output."""
    for name, p in model.named_parameters():
        if p.dim() == 1:
            p.data.add_(0.2 * torch.randn_like(p))
        elif "embed" not in name:
            p.data.mul_(scale)
        p.data.copy_(p.data.half().float())  # kept as f16 in the files, so that both sides hold the same numbers
    return model.eval().requires_grad_(False)


shutil.rmtree(OUT, ignore_errors=True)
vocab = write_tokenizer(f"{OUT}/tokenizer")
BOS, EOS, N, D = vocab["<|startoftext|>"], vocab["<|endoftext|>"], len(vocab), 32
text = spread(CLIPTextModel(CLIPTextConfig(
    vocab_size=N, hidden_size=D, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=77,
    hidden_act="quick_gelu", bos_token_id=BOS, eos_token_id=EOS, pad_token_id=EOS)), 1.5)
unet = spread(UNet2DConditionModel(
    sample_size=8, block_out_channels=(16, 32, 32), layers_per_block=1, cross_attention_dim=D, attention_head_dim=2, norm_num_groups=8,
    down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D")))
vae = spread(AutoencoderKL(
    block_out_channels=(8, 8, 16, 16), down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    layers_per_block=1, latent_channels=4, norm_num_groups=4, sample_size=64, scaling_factor=0.25), 1.4)
sched = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)
for name, model in (("text_encoder", text), ("unet", unet), ("vae", vae)):
    model.half().save_pretrained(f"{OUT}/{name}", safe_serialization=True)
    model.float()
os.makedirs(f"{OUT}/scheduler")
json.dump(dict(_class_name="DDIMScheduler", beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000,
               prediction_type="epsilon", clip_sample=False, set_alpha_to_one=False, steps_offset=1), open(f"{OUT}/scheduler/scheduler_config.json", "w"), indent=1)
json.dump({"_class_name": "StableDiffusionPipeline", "safety_checker": [None, None], "feature_extractor": [None, None],
           "scheduler": ["diffusers", "DDIMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
           "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"], "requires_safety_checker": False},
          open(f"{OUT}/model_index.json", "w"), indent=1)

# --- goldens ---
g = {}
row = [BOS, vocab["phot"], vocab["o</w>"], vocab["of</w>"], vocab["cat</w>"], EOS] + [EOS] * 71
out = text(torch.tensor([row]), output_hidden_states=True)
g["text.ids"], g["text.hidden"], g["text.pooled"] = torch.tensor([row], dtype=torch.int64), out.last_hidden_state, out.pooler_output
tm = text.text_model if hasattr(text, "text_model") else text
g["text.hidden_skip1"] = tm.final_layer_norm(out.hidden_states[-2])

x, t = torch.randn(2, 4, 8, 8), torch.tensor([3, 977])
context = torch.randn(2, 77, D)
g["unet.x"], g["unet.t"], g["unet.context"], g["unet.y"] = x, t, context, unet(x, t, context).sample
x = torch.randn(1, 4, 12, 20)
g["unet.x_wide"], g["unet.y_wide"] = x, unet(x, torch.tensor([500]), context[:1]).sample

pixels = torch.rand(2, 3, 64, 48) * 2 - 1
posterior = vae.encode(pixels).latent_dist
g["vae.pixels"], g["vae.mean"], g["vae.std"] = pixels, posterior.mean, posterior.std
g["vae.decoded"] = vae.decode(posterior.mean).sample

# Training: a word of two vectors, 20 steps of the diffusers preset's AdamW, two pictures a step.
STEPS, B, NV = 20, 2, 2
row = [BOS, vocab["phot"], vocab["o</w>"], vocab["of</w>"], N, N + 1, vocab["on</w>"], EOS]
ids = torch.tensor([row + [EOS] * (77 - len(row))] * B)
start = text.get_input_embeddings().weight.data[[vocab["cat</w>"], vocab["dog</w>"]]].clone()
table = text.get_input_embeddings()
vectors = torch.nn.Parameter(start.clone())


def encode(ids):
    """The text encoder with the vectors put behind the table, as a function of the vectors."""
    full = torch.cat([table.weight, vectors])
    original = table.forward
    table.forward = lambda i: F.embedding(i, full)
    try:
        return text(ids).last_hidden_state
    finally:
        table.forward = original


z = torch.randn(STEPS, B, 4, 8, 8)
e = torch.randn(STEPS, B, 4, 8, 8)
ts = torch.randint(0, 1000, (STEPS, B))
opt = torch.optim.AdamW([vectors], lr=2e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2)
trajectory, losses = [], []
for s in range(STEPS):
    loss = F.mse_loss(unet(sched.add_noise(z[s], e[s], ts[s]), ts[s], encode(ids)).sample, e[s])
    opt.zero_grad()
    loss.backward()
    if s == 0:
        g["train.gradient"] = vectors.grad.clone()
    opt.step()
    trajectory.append(vectors.detach().clone())
    losses.append(loss.item())
g.update({"train.ids": ids, "train.start": start, "train.z": z, "train.noise": e, "train.t": ts,
          "train.trajectory": torch.stack(trajectory), "train.losses": torch.tensor(losses)})

# The same under the `diffusers` preset: single pictures, four of them a step, rate 5e-4 x 4.
A = 4
z = torch.randn(STEPS, A, 1, 4, 8, 8)
e = torch.randn(STEPS, A, 1, 4, 8, 8)
ts = torch.randint(0, 1000, (STEPS, A, 1))
vectors.data.copy_(start)
opt = torch.optim.AdamW([vectors], lr=5e-4 * A, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2)
preset = []
for s in range(STEPS):
    opt.zero_grad()
    for a in range(A):
        noisy = sched.add_noise(z[s, a], e[s, a], ts[s, a])
        (F.mse_loss(unet(noisy, ts[s, a], encode(ids[:1])).sample, e[s, a]) / A).backward()
    opt.step()
    preset.append(vectors.detach().clone())
g.update({"preset.z": z, "preset.noise": e, "preset.t": ts, "preset.trajectory": torch.stack(preset)})

# Sides that are no multiples of four: what is halved must come back to its size.
x = torch.randn(1, 4, 9, 13)
g["unet.x_odd"], g["unet.y_odd"] = x, unet(x, torch.tensor([500]), context[:1]).sample
g = {k: v.detach().to(torch.int64 if v.dtype == torch.int64 else torch.float32).contiguous() for k, v in g.items()}
save_file(g, os.path.join(HERE, "tiny.safetensors"))
print({k: tuple(v.shape) for k, v in g.items()}, "losses", losses[:3], losses[-3:], "picture std", g["vae.decoded"].std().item(),
      "distance", (trajectory[-1] - start).norm().item())
