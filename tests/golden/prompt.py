"""Golden token ids and prompt chunks -> tokenizer/{vocab.json,merges.txt}, prompt.json.

Ids come from transformers 5.23.0 (tokenizers 0.23.3), chunks from ComfyUI's own SDTokenizer (0.33.0, commit 783545f6) over the same vocabulary.

    python tests/golden/prompt.py PATH_OF_A_COMFYUI_CHECKOUT
"""

import ast
import json
import logging
import re
import sys
from pathlib import Path

import torch
from transformers import CLIPTokenizer

here = Path(__file__).parent
folder = here / "tokenizer"
folder.mkdir(exist_ok=True)

# CLIP's alphabet: every byte as a visible character, bare and at the end of a word. Then merges that build a few words from the left.
visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
alphabet = [chr(b) for b in visible] + [chr(256 + i) for i in range(256 - len(visible))]
merges, seen = [], set()
for word in "a photo of the cat dog red in night style it's 'll er ing tion 日本 é".split():
    units = list("".join({b: chr(b) for b in visible}.get(b) or alphabet[188 + [x for x in range(256) if x not in visible].index(b)] for b in word.encode()))
    units[-1] += "</w>"
    while len(units) > 1:
        pair = (units[0], units[1])
        if pair not in seen:
            seen.add(pair)
            merges.append(pair)
        units = [units[0] + units[1]] + units[2:]
tokens = alphabet + [c + "</w>" for c in alphabet] + ["".join(m) for m in merges] + ["<|startoftext|>", "<|endoftext|>"]
assert len(set(tokens)) == len(tokens)
(folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}, ensure_ascii=False))
(folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))

hf = CLIPTokenizer.from_pretrained(folder)
TEXTS = [
    "", " ", "a photo of a cat", "A Photo OF the\n\tCAT", "cats", "don't it's we'll", "12 345", "café naïve É", "e\u0301 A\u030a",
    "日本語のネコ", "🐈 and 👩‍🚀", "<|endoftext|>", "a cat<|endoftext|>dog", "<|ENDOFTEXT|> x", "<|startoftext|>a", "...!!! ?", "<my-cat>", "under_score-d", "a  b", "\u00a0nbsp\u3000wide",
    "ﬁne ｆｕｌｌ", "&amp; &lt;", "İstanbul ẞ", "مرحبا", "a\u200bb", "cat,dog", "(cat:1.2)", "\\(x\\)", "½ ² Ⅳ", "x" * 60, "'s's", "embedding:foo",
]
ids = [{"text": t, "ids": hf(t)["input_ids"][1:-1]} for t in TEXTS]

# ComfyUI's prompt code over this tokenizer. Embeddings are vectors that tell their own name and row.
EMBEDDINGS = {"foo": 2, "big": 9, "huge": 80, "sub/bar": 1, "foo.pt": 2, "x,y": 3}
comfy = Path(sys.argv[1]) / "comfy" / "sd1_clip.py"
wanted = ["parse_parentheses", "token_weights", "escape_important", "unescape_important", "SDTokenizer"]
scope = dict(torch=torch, re=re, logging=logging, CLIPTokenizer=CLIPTokenizer)
body = [n for n in ast.parse(comfy.read_text()).body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and n.name in wanted]
exec(compile(ast.Module(body=body, type_ignores=[]), "sd1_clip.py", "exec"), scope)
names = list(EMBEDDINGS)


def load_embed(name, *_):
    return torch.tensor([[names.index(name), row] for row in range(EMBEDDINGS[name])]) if name in EMBEDDINGS else None


scope["load_embed"] = load_embed
PROMPTS = [
    "", "a photo of a cat", "a (red) cat", "a ((red)) cat", "a (red:1.3) cat", "(a (red:0.5) cat:1.4) dog", "(a (red) cat:2)", "\\(red\\) cat", "(red", "red)", "a (red)) cat (",
    "(:1.5)", "(red:x) cat", "(red:1.2:1.3)", "(a:b:0.7)", "(red: 1.1 )", "(red:-1)", "()", "((:2))", "a [red] cat", "(red\\):1.2)",
    "embedding:foo", "a embedding:foo cat", "a cat,embedding:foo", "(embedding:foo:1.2)", "embedding:foo:1.3", "embedding:foo, dog", "embedding:foo,dog", "embedding:foo,,",
    "embedding:foo.pt x", "embedding:sub/bar", "embedding:foo<lora> cat", "embedding:foo[x", "embedding: foo dog", "EMBEDDING:foo", "embedding:nope cat", "embedding:nope, cat", "embedding:nope",
    "a\nembedding:foo\ndog", "embedding:foo embedding:foo", "a (cat) embedding:foo", "a (embedding:foo dog:1.5)", "(cat)embedding:foo", "embedding:x,y", "embedding:big dog",
    "a cat " * 36 + "a embedding:foo dog", "a cat " * 36 + "a", "a cat " * 37 + "(dog:1.2) a (red) cat", "a cat " * 35 + "embedding:big dog", "embedding:huge dog", "a " * 75, "a " * 76, "(dog)" * 80,
    "a " * 73 + "(cat dog red:1.2)", "a " * 200,
]


def chunks(prompt, pad):
    t = scope["SDTokenizer"](folder, embedding_directory="x", pad_with_end=pad)
    try:
        out = t.tokenize_with_weights(prompt)
    except IndexError:
        return None
    return [[([names[int(i[0])], int(i[1])] if torch.is_tensor(i) else i, w) for i, w in chunk] for chunk in out]


rows = [{"prompt": p, "pad_with_end": pad, "chunks": chunks(p, pad)} for p in PROMPTS for pad in ([True, False] if p == "a (red) cat" else [True])]
(here / "prompt.json").write_text(json.dumps({"ids": ids, "embeddings": EMBEDDINGS, "prompts": rows}, ensure_ascii=False, separators=(",", ":")))
