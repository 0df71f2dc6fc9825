"""The text encoders: names and shapes of their file, and what PyTorch computes with it."""
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from diffusers.loaders import single_file_utils as peer
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig
from diffusers.pipelines.stable_diffusion.convert_from_ckpt import convert_ldm_bert_checkpoint
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from . import names

VOCABULARY, START, END = 600, 598, 599


class Table(torch.nn.Module):
    """A table of tokens with two vectors behind it that are learned, and start as the tokens 17 and 33."""

    def __init__(self, weight):
        super().__init__()
        self.weight = weight
        self.vectors = torch.nn.Parameter(weight.detach()[[17, 33]].clone())

    def forward(self, ids):
        return F.embedding(ids, torch.cat([self.weight, self.vectors]))


class Clip:
    """CLIP's, with the names of transformers or of OpenCLIP."""

    def __init__(self, prefix, width, is_open, projects=False):
        self.prefix, self.width, self.is_open, self.projects, self.pad = prefix, width, is_open, projects, 0 if is_open else END
        self.model = CLIPTextModelWithProjection(CLIPTextConfig(
            vocab_size=VOCABULARY, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=3, num_attention_heads=width // 64,
            max_position_embeddings=77, hidden_act="gelu" if is_open else "quick_gelu", projection_dim=width, bos_token_id=START,
            eos_token_id=END, pad_token_id=self.pad)).eval().requires_grad_(False)
        self.inside = self.model.text_model

    def shapes(self):
        if self.is_open:
            return names.open_clip(self.prefix, VOCABULARY, self.width, 3)
        return {self.prefix + k: list(v.shape) for k, v in self.model.state_dict().items() if k.startswith("text_model.")}

    def load(self, file):
        found = peer.convert_open_clip_checkpoint(self.model, file, self.prefix) if self.is_open else peer.convert_ldm_clip_checkpoint(file)
        missing, extra = self.model.load_state_dict(found, strict=False)
        # The peer leaves the projection in the file where nothing uses it.
        assert not extra and missing == ([] if self.projects else ["text_projection.weight"]), (missing, extra)
        self.table = self.inside.embeddings.token_embedding = Table(self.inside.embeddings.token_embedding.weight)

    def run(self, ids):
        out = self.model(ids, output_hidden_states=True)
        first_end = (ids == END).int().argmax(1)
        return SimpleNamespace(last=out.last_hidden_state, penultimate=out.hidden_states[-2], projected=out.text_embeds,
                               normed=self.inside.final_layer_norm(out.hidden_states[-2]),
                               end=out.last_hidden_state[torch.arange(len(ids)), first_end])


class Bert:
    """That of CompVis' text-to-image model: BERT's tokens, no mask of any kind, an attention that is narrower than the text."""
    prefix, width, inner, pad = "cond_stage_model.transformer.", 96, 64, 0

    def shapes(self):
        return names.x_transformer(self.prefix, VOCABULARY, self.width, self.inner, 2)

    def load(self, file):
        # The peer's converter wants a module, not a file.
        module = tree({k.removeprefix("cond_stage_model."): v for k, v in file.items() if k.startswith(self.prefix)})
        self.model = convert_ldm_bert_checkpoint(module, LDMBertConfig(
            vocab_size=VOCABULARY, d_model=self.width, encoder_ffn_dim=4 * self.width, encoder_layers=2, encoder_attention_heads=1, head_dim=64))
        self.model.requires_grad_(False)
        self.table = self.model.model.embed_tokens = Table(self.model.model.embed_tokens.weight)

    def run(self, ids):
        return SimpleNamespace(last=self.model(ids).last_hidden_state)


def tree(file):
    """The tensors `a.0.b` of a file as `a[0].b`."""
    if isinstance(file, torch.Tensor):
        return torch.nn.Parameter(file)
    below = {}
    for name, value in file.items():
        first, _, rest = name.partition(".")
        if rest:
            below.setdefault(first, {})[rest] = value
        else:
            below[first] = value
    if all(k.isdigit() for k in below):
        return [tree(below.get(str(i), {})) for i in range(max(map(int, below), default=-1) + 1)]
    return SimpleNamespace(**{k: tree(v) for k, v in below.items()})


class Sd1Text:
    """One encoder, of which the UNet sees the last hidden state."""

    def __init__(self):
        self.encoders = {"": Clip("cond_stage_model.transformer.", 64, False)}

    def condition(self, out):
        return out[""].last, None

    def goldens(self, out):
        return {"last": out[""].last, "penultimate": out[""].normed, "pooled": out[""].end}


class Sd2Text(Sd1Text):
    """One encoder, of which the last layer is left out, but not the norm after it."""

    def __init__(self):
        self.encoders = {"": Clip("cond_stage_model.model.", 64, True)}

    def condition(self, out):
        return out[""].normed, None


class SdxlText:
    """Two encoders without their last layers and norms, and of the second's last state the projected one at the end of the text."""

    def __init__(self):
        self.encoders = {"l.": Clip("conditioner.embedders.0.transformer.", 64, False),
                         "g.": Clip("conditioner.embedders.1.model.", 128, True, projects=True)}

    def condition(self, out):
        return torch.cat([out["l."].penultimate, out["g."].penultimate], -1), out["g."].projected

    def goldens(self, out):
        context, pooled = self.condition(out)
        hidden = {f"{e}hidden": out[e].penultimate for e in self.encoders}
        return hidden | {f"{e}last": out[e].last for e in self.encoders} | {"g.pooled": pooled, "context": context}


class LdmText(Sd1Text):
    """Likewise; its texts have no state that stands for all."""

    def __init__(self):
        self.encoders = {"": Bert()}

    def goldens(self, out):
        return {"last": out[""].last}
