"""Makes the whole of examples/models/creatures, the judge and the concept pictures with one command:

    python examples/models/train_creatures/train.py [--minutes 75] [--out …] [--work …]

Everything is saved under --work (ignored by git), so that a run that was killed goes on where it stopped.
"""
import argparse
import os
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--minutes", type=float, default=75, help="training time of UNet and text encoder")
    p.add_argument("--vae-minutes", type=float, default=12)
    p.add_argument("--word-minutes", type=float, default=4, help="first lessons of the text encoder")
    p.add_argument("--noun-minutes", type=float, default=11, help="training of the nouns' vectors with the UNet, at the end")
    p.add_argument("--decoder-minutes", type=float, default=6, help="training of the decoder alone, after the VAE's")
    p.add_argument("--judge-minutes", type=float, default=5)
    p.add_argument("--pictures", type=int, default=20000, help="captioned pictures drawn for training")
    p.add_argument("--processes", type=int, default=2, help="single-threaded training processes")
    p.add_argument("--preview", type=float, default=15, help="minutes between exports while training")
    p.add_argument("--work", default=os.path.join(HERE, "work"))
    p.add_argument("--out", default=os.path.join(HERE, "..", "creatures"))
    p.add_argument("--judge", default=os.path.join(HERE, "..", "creatures-judge"))
    p.add_argument("--concepts", default=os.path.join(HERE, "..", "..", "concepts"))
    p.add_argument("--seed", type=int, default=0)
    return p.parse_args()


def log(text):
    print(time.strftime("%H:%M:%S"), text, flush=True)


def vae_stage(a):
    import vae
    import world
    vae.train(a.work, a.vae_minutes, world.species(), log)


def decoder_stage(a):
    import vae
    import world
    vae.polish_decoder(a.work, a.decoder_minutes, world.species(), log)


def tokenizer_stage(a):
    import captions
    import tokenizer
    import world
    tokenizer.write(os.path.join(a.work, "tokenizer"), captions.all_words())


def tokenizer_of(a):
    from transformers import CLIPTokenizer
    return CLIPTokenizer.from_pretrained(os.path.join(a.work, "tokenizer"))


def latent_stage(a):
    import vae
    import world
    model, _ = vae.train(a.work, 0, world.species(), log)
    vae.cache_latents(model, a.work, a.pictures, world.species(), tokenizer_of(a), log)


def export_stage(a, trainer, vae_and_scale):
    import captions
    import export
    import world
    unet, text = trainer.averaged()
    export.pipeline(a.out, *vae_and_scale, unet, text, captions.all_words())
    export.nouns(os.path.join(a.out, "nouns.json"), world.species())
    log(f"exported after {trainer.samples} samples, {trainer.spent / 60:.0f} minutes: {export.megabytes(a.out):.1f} MB")


def denoiser_stage(a):
    import denoiser
    import parallel
    import vae
    import world
    vae_and_scale = vae.train(a.work, 0, world.species(), log)
    trainer = denoiser.Trainer(a.work, tokenizer_of(a), vae_and_scale[1], a.seed)
    data = vae.load_latents(a.work)
    last = [trainer.spent - 60 * a.preview + 8 * 60]             # the first preview comes after 8 minutes

    def preview(t):
        if t.spent - last[0] > 60 * a.preview:
            last[0] = t.spent
            export_stage(a, t, vae_and_scale)
    trainer.run(data, a.minutes, log, preview)
    if not parallel.rank():
        export_stage(a, trainer, vae_and_scale)


def noun_stage(a):
    """The last part: UNet and the vectors of the nouns together, at a lower rate. Starts again when it was killed."""
    import denoiser
    import parallel
    import vae
    import world
    tok, vae_and_scale = tokenizer_of(a), vae.train(a.work, 0, world.species(), log)
    trainer = denoiser.Trainer(a.work, tok, vae_and_scale[1], a.seed)
    vocabulary = tok.get_vocab()
    trainer.learn_nouns([vocabulary[noun + "</w>"] for noun in world.species()])
    trainer.spent, trainer.step, trainer.path = 0., 0, os.path.join(a.work, "denoiser_nouns.pt")
    trainer.run(vae.load_latents(a.work), a.noun_minutes, log, peak=4e-4)
    if not parallel.rank():
        export_stage(a, trainer, vae_and_scale)


def word_stage(a):
    import denoiser
    import parallel
    import vae
    import words
    import world
    tok, names = tokenizer_of(a), world.species()
    trainer = denoiser.Trainer(a.work, tok, vae.train(a.work, 0, names, log)[1], a.seed)
    if not trainer.taught:
        words.begin(trainer.text, tok, names)
        words.teach(trainer.text, tok, names, a.word_minutes, log)
        trainer.taught = True
        if not parallel.rank():
            trainer.save()


def judge_stage(a):
    import judge
    judge.export(judge.train(a.work, a.judge_minutes, log), a.judge, log)


def main():
    a = options()
    import export
    import parallel
    import world
    os.makedirs(a.work, exist_ok=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    tokenizer_stage(a)
    export.concepts(a.concepts, world.species())
    parallel.run(vae_stage, (a,), a.processes)
    parallel.run(latent_stage, (a,), a.processes)
    parallel.run(decoder_stage, (a,), a.processes)
    parallel.run(judge_stage, (a,), 1)
    parallel.run(word_stage, (a,), a.processes)
    parallel.run(denoiser_stage, (a,), a.processes)
    parallel.run(noun_stage, (a,), a.processes)


if __name__ == "__main__":
    main()
