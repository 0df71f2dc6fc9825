"""UNet and text encoder: models, training with v-prediction on cached latents, export-ready averages."""
import math
import os
import time

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

import parallel
import world
from muon import Muon

WIDTH = 128                                      # of the text encoder and of cross attention
TOGETHER = 8                                     # steps after which the processes average their weights
PICTURES = 56                                    # captioned pictures per step, over all processes


def scheduler():
    return DDIMScheduler(beta_start=.00085, beta_end=.012, beta_schedule="scaled_linear", num_train_timesteps=1000,
                         clip_sample=False, set_alpha_to_one=False, steps_offset=1, prediction_type="v_prediction",
                         timestep_spacing="leading")


def new_unet():
    return UNet2DConditionModel(
        sample_size=world.PIXELS // 8, in_channels=4, out_channels=4, block_out_channels=(64, 96, 128), layers_per_block=1,
        cross_attention_dim=WIDTH, attention_head_dim=4, norm_num_groups=16,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"))


def new_text(tok):
    return CLIPTextModel(CLIPTextConfig(
        vocab_size=len(tok), hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=77, hidden_act="quick_gelu", projection_dim=WIDTH, bos_token_id=tok.bos_token_id,
        eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id))


class Trainer:
    """Everything that is saved and resumed: weights, averages, optimiser, time spent."""

    def __init__(self, work, tok, scale, seed=0):
        torch.manual_seed(seed)
        self.path = os.path.join(work, "denoiser.pt")
        self.scale, self.spent, self.step, self.samples = scale, 0., 0, 0
        self.unet, self.text = new_unet().to(memory_format=torch.channels_last), new_text(tok)
        self.params = list(self.unet.parameters())
        self.taught = False                                      # has the text encoder had its first lessons?
        self.nouns = None                                        # ids of the words whose vectors are trained along
        matrix = [n.endswith("weight") and p.ndim > 1 and not n.startswith(("conv_in", "conv_out", "time_emb"))
                  for n, p in self.unet.named_parameters()]
        self.opts = [Muon([p for p, m in zip(self.params, matrix) if m], lr=1e-3),
                     torch.optim.AdamW([p for p, m in zip(self.params, matrix) if not m], lr=1e-3, weight_decay=0,
                                       betas=(.9, .99), fused=True)]
        self.average = [p.detach().clone() for p in self.params]
        self.alphas = scheduler().alphas_cumprod
        if os.path.exists(self.path):
            s = torch.load(self.path, weights_only=False)
            self.unet.load_state_dict(s["unet"])
            self.text.load_state_dict(s["text"])
            for opt, state in zip(self.opts, s["opts"]):
                opt.load_state_dict(state)
            self.taught = s["taught"]
            self.average, self.spent, self.step, self.samples = s["average"], s["spent"], s["step"], s["samples"]
        torch.manual_seed(1000 * parallel.rank() + self.step)

    def learn_nouns(self, ids):
        """From here on the vectors of these words are trained along, as textual inversion does; the rest of the text encoder stays."""
        table = self.text.get_input_embeddings().weight
        self.text.requires_grad_(False)
        table.requires_grad_(True)
        self.nouns = torch.zeros(len(table), 1)
        self.nouns[ids] = 1
        self.params.append(table)
        self.average.append(table.detach().clone())
        self.opts.append(torch.optim.AdamW([dict(params=[table], scale=5.)], lr=1e-3, weight_decay=0, betas=(.9, .99), fused=True))

    def save(self):
        torch.save(dict(unet=self.unet.state_dict(), text=self.text.state_dict(), opts=[o.state_dict() for o in self.opts],
                        average=self.average, spent=self.spent, step=self.step, samples=self.samples,
                        taught=self.taught), self.path + ".new")
        os.replace(self.path + ".new", self.path)

    def averaged(self):
        """(unet, text) holding the averaged weights, in ordinary memory layout."""
        mine = [p.detach().clone() for p in self.params]
        with torch.no_grad():
            for p, a in zip(self.params, self.average):
                p.copy_(a)
        unet, text = new_unet(), CLIPTextModel(self.text.config)
        unet.load_state_dict({k: v.contiguous() for k, v in self.unet.state_dict().items()})
        text.load_state_dict(self.text.state_dict())
        with torch.no_grad():
            for p, m in zip(self.params, mine):
                p.copy_(m)
        return unet.eval(), text.eval()

    def loss(self, z, ids):
        """v-prediction error; more of the high noise levels, where the words decide, than of the low ones."""
        t = (torch.rand(len(z)) ** .6 * 1000).long().clamp(max=999)
        a = self.alphas[t].view(-1, 1, 1, 1)
        noise = torch.randn_like(z)
        noisy, target = a.sqrt() * z + (1 - a).sqrt() * noise, a.sqrt() * noise - (1 - a).sqrt() * z
        with torch.set_grad_enabled(self.nouns is not None):     # the text encoder has learnt before, see words.py
            hidden = self.text(ids)[0]
        out = self.unet(noisy.contiguous(memory_format=torch.channels_last), t, hidden).sample
        return F.mse_loss(out, target)

    def run(self, data, minutes, log, every=None, peak=1e-3):
        """Trains until `minutes` in all are spent; calls every(self) about each 60 seconds after saving."""
        stats, ids, budget = data["stats"], data["ids"].long(), minutes * 60
        start, kept, mean = time.time() - self.spent, time.time(), None
        while self.spent < budget:
            rate = peak * min(1, (self.step + 1) / 100) * (.5 + .5 * math.cos(math.pi * self.spent / budget)) + 2e-6
            for group in [g for opt in self.opts for g in opt.param_groups]:
                group["lr"] = rate * group.get("scale", 1.)
            j = torch.randint(0, len(ids), (PICTURES // parallel.workers(),))
            m, d = stats[:, j].float()
            loss = self.loss((m + d * torch.randn_like(m)) * self.scale, ids[j])
            for p in self.params:
                p.grad = None
            loss.backward()
            if self.nouns is not None:
                self.params[-1].grad *= self.nouns
            torch.nn.utils.clip_grad_norm_(self.params, 1.)
            for opt in self.opts:
                opt.step()
            self.step += 1
            if self.step % TOGETHER == 0:
                self.spent = parallel.average([p.data for p in self.params], time.time() - start)
            self.samples += PICTURES
            with torch.no_grad():
                keep = min(.997, (1 + self.step) / (10 + self.step))
                torch._foreach_lerp_(self.average, [p.detach() for p in self.params], 1 - keep)
            mean = loss.item() if mean is None else .98 * mean + .02 * loss.item()
            if parallel.rank():
                continue
            if self.step % 100 == 0:
                log(f"denoiser step {self.step} samples {self.samples} {self.spent:.0f}s loss {mean:.4f} lr {rate:.1e}")
            if time.time() - kept > 60:
                self.save()
                if every:
                    every(self)
                kept = time.time()
        if not parallel.rank():
            self.save()
