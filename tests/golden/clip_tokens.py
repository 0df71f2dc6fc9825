"""Makes tests/golden/clip_tokens.json: what transformers' CLIPTokenizer makes of hostile strings with CLIP's own vocabulary.

    pip install transformers      (made with transformers 5.23.0)
    python tests/golden/clip_tokens.py
"""
import json
import os
import tempfile

import transformers
from transformers import CLIPTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
MERGES = os.path.join(HERE, "..", "..", "nodes", "engine", "src", "tokenizer", "data", "clip_merges.txt")
TEXTS = [
    "", " ", "a photo of a cat", "A Photo, of   a\tCAT!\n", "don't we'll they've I'M", "2026-11-21 3.14159 10,000", "hello-world foo_bar a/b",
    "café naïve Ångström", "cafe\u0301 A\u030angstro\u0308m", "ﬁne ﬂour ½ ²", "Straße İstanbul ǅ", "日本語のテキスト", "中文字符 测试", "한국어 텍스트", "Привет, мир",
    "שלום עולם", "مرحبا بالعالم", "हिन्दी", "🙂👍🏽 👨‍👩‍👧‍👦 🇩🇪", "zero\u200bwidth\u200djoin\ufeff", "non\u00a0breaking\u2003space", "<|startoftext|> a <|endoftext|> b",
    "<|endoftext|><|endoftext|>", "<zorvo> <my-cat> sks", "((masterpiece:1.2)), [best quality]", "\\(escaped\\)", "!!!???...", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "supercalifragilisticexpialidocious", "x" * 300, "\u0000\u0001\x7f", "\ud7ff\ue000\ufffd", "ⅷ Ⅷ ① ㊀", "e=mc^2 ∑∫√ ≠", "https://example.org/a?b=c&d=%20", "'s 't 're", "I'LL'VE",
    "trading card of a dragon, by greg, 8k, octane render", "ﷺ", "a\u0300\u0301\u0302", "ＦＵＬＬ ｗｉｄｔｈ",
]
merges = open(MERGES, encoding="utf-8").read().rstrip("\n").split("\n")
shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
characters = [chr(b) for b in shown] + [chr(256 + i) for i in range(256 - len(shown))]
tokens = characters + [c + "</w>" for c in characters] + [m.replace(" ", "") for m in merges] + ["<|startoftext|>", "<|endoftext|>"]
with tempfile.TemporaryDirectory() as folder:
    json.dump({t: i for i, t in enumerate(tokens)}, open(f"{folder}/vocab.json", "w"))
    open(f"{folder}/merges.txt", "w", encoding="utf-8").write("#version: 0.2\n" + "\n".join(merges) + "\n")
    tokenizer = CLIPTokenizer.from_pretrained(folder)
rows = [dict(text=t, ids=tokenizer(t, add_special_tokens=False).input_ids) for t in TEXTS]
with open(os.path.join(HERE, "clip_tokens.json"), "w") as f:
    json.dump(dict(transformers=transformers.__version__, rows=rows), f, indent=0)
print(len(tokens), len(rows))
