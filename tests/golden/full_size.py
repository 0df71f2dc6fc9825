"""Makes a pipeline folder of Stable Diffusion 1.5's true structure and size with random weights (about 2 GB, 16 bit), for the tests that
show what only shows at that size:

    pip install torch diffusers transformers
    python tests/golden/full_size.py FOLDER/sd15
    VOCABLE_FULL_SIZE=FOLDER/sd15 cargo test --release --workspace --test it full_size -- --nocapture
"""
import os
import shutil
import sys

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

out = sys.argv[1]
here = os.path.dirname(os.path.abspath(__file__))
torch.manual_seed(0)


def save(model, name):
    model.half().save_pretrained(os.path.join(out, name), safe_serialization=True)
    print(name, f"{sum(p.numel() for p in model.parameters()) / 1e6:.0f} M parameters", flush=True)


os.makedirs(out)
# The tokenizer of the tiny model: its ids lie inside the real vocabulary's 49408.
shutil.copytree(os.path.join(here, "tiny", "tokenizer"), os.path.join(out, "tokenizer"))
shutil.copy(os.path.join(here, "tiny", "model_index.json"), out)
save(CLIPTextModel(CLIPTextConfig(
    vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
    max_position_embeddings=77, hidden_act="quick_gelu", projection_dim=768, bos_token_id=522, eos_token_id=523, pad_token_id=523)), "text_encoder")
save(UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8), "unet")
save(AutoencoderKL(
    block_out_channels=(128, 256, 512, 512), down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    layers_per_block=2, latent_channels=4, sample_size=512), "vae")
DDIMScheduler(beta_start=.00085, beta_end=.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
              steps_offset=1).save_pretrained(os.path.join(out, "scheduler"))
