"""The names of a single file (CompVis' latent-diffusion, "ldm"), from diffusers' names of the same tensors."""
import re

# A name inside a block: the side of an autoencoder, the way through the network, level, kind, index, what is inside, weight or bias.
BLOCK = re.compile(r"((?:encoder|decoder)\.)?(down|up|mid)_blocks?\.(?:(\d+)\.)?(\w+)\.(\d+)\.(.+)\.(weight|bias)")
RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0", "conv2": "out_layers.3",
          "conv_shortcut": "skip_connection"}
OUTSIDE = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "add_embedding.linear_1": "label_emb.0.0",
           "add_embedding.linear_2": "label_emb.0.2", "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}
ATTENTION = {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out", "group_norm": "norm"}


def unet_name(name, names):
    """The ldm name of a diffusers name. ldm counts the blocks of all levels in one row, three to a level: two residual blocks and what changes
    the size on the way down, three residual blocks on the way up."""
    block = BLOCK.fullmatch(name)
    if not block:
        stem, _, leaf = name.rpartition(".")
        return f"{OUTSIDE[stem]}.{leaf}"
    _, way, level, kind, i, stem, leaf = block.groups()
    level, i = int(level or 0), int(i)
    if kind == "downsamplers":
        return f"input_blocks.{3 * level + 3}.0.op.{leaf}"
    if kind == "upsamplers":
        # Behind the residual block and, where the level has one, the transformer.
        place = 2 if f"up_blocks.{level}.attentions.0.norm.weight" in names else 1
        return f"output_blocks.{3 * level + 2}.{place}.conv.{leaf}"
    if way == "mid":
        # Residual block, transformer, residual block.
        place = 1 if kind == "attentions" else 2 * i
        path = f"middle_block.{place}"
    else:
        row = f"input_blocks.{3 * level + 1 + i}" if way == "down" else f"output_blocks.{3 * level + i}"
        path = f"{row}.{int(kind == 'attentions')}"
    return f"{path}.{stem if kind == 'attentions' else RESNET[stem]}.{leaf}"


def vae_name(name, levels):
    """The same of an autoencoder, whose decoder counts its levels from the picture's side in ldm."""
    block = BLOCK.fullmatch(name)
    if not block:
        return name.replace("conv_norm_out", "norm_out")
    side, way, level, kind, i, stem, leaf = block.groups()
    if way == "mid":
        if kind == "attentions":
            return f"{side}mid.attn_1.{ATTENTION[stem]}.{leaf}"
        path = f"{side}mid.block_{int(i) + 1}"
    else:
        path = f"{side}{way}.{level if way == 'down' else levels - 1 - int(level)}"
        if kind != "resnets":
            return f"{path}.{way}sample.conv.{leaf}"
        path += f".block.{i}"
    return f"{path}.{stem.replace('conv_shortcut', 'nin_shortcut')}.{leaf}"


def open_clip(prefix, vocabulary, width, layers):
    """Names and shapes of an OpenCLIP text encoder: all of `attn.in_proj` is one tensor, and `text_projection` a matrix for x·P."""
    shapes = {"token_embedding.weight": [vocabulary, width], "positional_embedding": [77, width], "text_projection": [width, width],
              "logit_scale": [], "ln_final.weight": [width], "ln_final.bias": [width]}
    for i in range(layers):
        block = f"transformer.resblocks.{i}."
        shapes |= {block + "attn.in_proj_weight": [3 * width, width], block + "attn.in_proj_bias": [3 * width]}
        shapes |= linear(block + "attn.out_proj", width, width) | linear(block + "mlp.c_fc", 4 * width, width)
        shapes |= linear(block + "mlp.c_proj", width, 4 * width) | norm(block + "ln_1", width) | norm(block + "ln_2", width)
    return {prefix + name: shape for name, shape in shapes.items()}


def x_transformer(prefix, vocabulary, width, inner, layers):
    """Names and shapes of the text encoder of CompVis' text-to-image model: attention and feed-forward are layers of their own, each with the
    norm before it; `to_logits` is in the file, but nothing uses it."""
    shapes = {"token_emb.weight": [vocabulary, width], "pos_emb.emb.weight": [77, width]}
    for i in range(layers):
        attention, forward = f"attn_layers.layers.{2 * i}.", f"attn_layers.layers.{2 * i + 1}."
        shapes |= norm(attention + "0", width) | {f"{attention}1.to_{x}.weight": [inner, width] for x in "qkv"}
        shapes |= linear(attention + "1.to_out", width, inner) | norm(forward + "0", width)
        shapes |= linear(forward + "1.net.0.0", 4 * width, width) | linear(forward + "1.net.2", width, 4 * width)
    shapes |= norm("norm", width) | linear("to_logits", vocabulary, width)
    return {prefix + name: shape for name, shape in shapes.items()}


def linear(name, out, inner):
    return {f"{name}.weight": [out, inner], f"{name}.bias": [out]}


def norm(name, width):
    return {f"{name}.weight": [width], f"{name}.bias": [width]}
