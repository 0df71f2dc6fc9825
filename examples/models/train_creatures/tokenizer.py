"""A CLIP byte-pair tokenizer whose merges make every word of the world one token.

Any other text still splits into pieces, down to bytes.  Ids: 256 byte characters, the same with </w>, the
merges in order, <|startoftext|>, <|endoftext|>.
"""
import json
import os
import shutil
from collections import Counter


def byte_characters():
    """CLIP's (GPT-2's) printable stand-ins for the 256 byte values, in the order of its vocabulary."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    chars = [chr(b) for b in keep]
    return chars + [chr(256 + n) for n in range(256 - len(keep))]


def learn_merges(words):
    """Plain byte-pair training, run until every word is a single symbol."""
    split = [[*w[:-1], w[-1] + "</w>"] for w in words]
    merges = []
    while True:
        pairs = Counter(p for s in split for p in zip(s, s[1:]))
        if not pairs:
            return merges
        best = max(pairs, key=lambda p: (pairs[p], p))
        merges.append(best)
        for k, s in enumerate(split):
            out, i = [], 0
            while i < len(s):
                if i + 1 < len(s) and (s[i], s[i + 1]) == best:
                    out.append(s[i] + s[i + 1])
                    i += 2
                else:
                    out.append(s[i])
                    i += 1
            split[k] = out


def write(folder, words):
    """Writes vocab.json, merges.txt, tokenizer.json and the two configurations; returns the CLIPTokenizer."""
    from transformers import CLIPTokenizer, CLIPTokenizerFast
    shutil.rmtree(folder, ignore_errors=True)                    # an old tokenizer.json would be read first
    os.makedirs(folder)
    merges = learn_merges(words)
    chars = byte_characters()
    symbols = list(dict.fromkeys(chars + [c + "</w>" for c in chars] + [a + b for a, b in merges]))
    symbols += ["<|startoftext|>", "<|endoftext|>"]
    with open(os.path.join(folder, "vocab.json"), "w", encoding="utf-8") as f:
        json.dump({s: i for i, s in enumerate(symbols)}, f, ensure_ascii=False)
    with open(os.path.join(folder, "merges.txt"), "w", encoding="utf-8") as f:
        f.write("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>",
               "pad_token": "<|endoftext|>"}
    for name, content in (("special_tokens_map.json", special),
                          ("tokenizer_config.json", {**special, "add_prefix_space": False, "do_lower_case": True,
                                                     "errors": "replace", "model_max_length": 77,
                                                     "tokenizer_class": "CLIPTokenizer"})):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
            json.dump(content, f, indent=2)
    tok = CLIPTokenizer.from_pretrained(folder)
    CLIPTokenizerFast.from_pretrained(folder).backend_tokenizer.save(os.path.join(folder, "tokenizer.json"))
    wrong = [w for w in words if len(tok(w).input_ids) != 3]
    if wrong:
        raise SystemExit(f"words that are not one token: {wrong[:10]}")
    return tok
