"""Makes tests/golden/bert_tokens.json: what transformers' BertTokenizerFast makes of hostile strings with BERT's own vocabulary, and the rows of 77
that CompVis' latent diffusion asks it for (ldm/modules/encoders/modules.py, BERTTokenizer).

    pip install transformers      (made with transformers 5.23.0)
    python tests/golden/bert_tokens.py
"""
import json
import os
import re
import tempfile

import transformers
from transformers import BertTokenizerFast

HERE = os.path.dirname(os.path.abspath(__file__))
ENGINE = os.path.join(HERE, "..", "..", "nodes", "engine", "src")
VOCAB = open(os.path.join(ENGINE, "tokenizer", "data", "bert_vocab.txt"), encoding="utf-8").read()
TEXTS = [
    "", " ", "\t\r\n", "a photo of a cat", "A Photo, of   a\tCAT!\n", "line\nfeed\r\nand\vtab\fform\x85next\u2028line\u2029par", "don't we'll they've I'M",
    "2026-11-21 3.14159 10,000 1e-4 0x7f", "١٢٣ ४५ ⅷ Ⅷ ① ㊀ ½ ²", "hello-world foo_bar a/b", "café naïve Ångström", "cafe\u0301 A\u030angstro\u0308m", "a\u0300\u0301\u0302\u0323",
    "ﬁne ﬂour ﬃ", "Straße STRASSE ẞ ǅ", "İstanbul ISTANBUL Iıiİ", "ΣΊΣΥΦΟΣ Σ σίσυφος", "日本語のテキスト", "中文字符 测试abc漢", "\u3400\u4dbf\u4e00\u9fff\uf900\ufaff", "\U00020000\U0002a6df\U0002a700\U0002b81f\U0002b820\U0002b920\U0002f800",
    "한국어 텍스트", "ｶﾞ ガ か\u3099", "Привет, мир ёлка Й", "שלום עולם שָׁלוֹם", "مرحبا بالعالم مُحَمَّد", "हिन्दी क्षि", "ภาษาไทย", "🙂👍🏽 👨‍👩‍👧‍👦 🇩🇪", "cat🙂dog", "zero\u200bwidth\u200djoin\ufeff\u2060\u00adsoft",
    "\u200b", "\ufeff", "non\u00a0breaking\u2003space\u3000wide\u1680og\u180emong", "\u0000nul\u0001\x7f\u0085\u009f", "\ud7ff\ue000\ufffd \U000f0000 \U0010ffff", "\u0378 unassigned \u202eoverride\u2066", "((masterpiece:1.2)), [best quality]",
    "\\(escaped\\)", "!!!???...---___***", "a.b,c;d:e'f\"g`h~i", "“quotes” «guillemets» ‚low‘ – — …", "、。「」！？", "e=mc^2 ∑∫√ ≠ ± × ÷ § ¶ † ‰ ′ ″", "$5 €6 £7 ¥8 ¢ ₿ ™ © ® °C № µ", "a+b<c>d|e~f^g`h$i", "https://example.org/a?b=c&d=%20",
    "[CLS] a [SEP] b [PAD][MASK] [UNK]", "a[SEP]b[MASK]c", "[sep] [Cls] [mask]", "[ SEP ] [[SEP]] [SEP", "[\u0000SEP] [S\u0301EP]", "[unused1] ##ing ##", "<|startoftext|> a <|endoftext|>", "<zorvo> <my-cat> sks *", "x<zorvo>y *cat*", "x" * 100, "x" * 101,
    "a " + "é" * 100 + " " + "é" * 101, "e\u0301" * 100, "supercalifragilisticexpialidocious antidisestablishmentarianism", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "unaffable unbelievably tokenization", "ﷺ ﷽", "ＦＵＬＬ ｗｉｄｔｈ １２", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝒇 𝟙", "Ⓐⓑ ᴀʙᴄ ʰ ª º",
    "æ Æ œ ø Ø ð Þ ł Ł đ ħ", "ọ ợ ữ ằ Việt Nam", "ŉ ĳ ﬀ ǆ ſ K Å", "trading card of a dragon, by greg, 8k, octane render", "i ♥ u ☆ → ◯ █ ░ ♪", "ᏣᎳᎩ Ꭰ ა Ა Ⴀ", "\u0345\u1fbc ᾼ ΐ", "q\u0307\u0323 \u0301 \u20dd a\u20e3 \u0903 \u093e",
]
LONG = ["a photo of a cat", "", "word " * 75, "word " * 76, "unbelievably " * 40, "[SEP] " * 80]

templates = open(os.path.join(ENGINE, "concept", "templates.rs"), encoding="utf-8").read()
templates = re.findall(r'"([^"]*\{\}[^"]*)"', templates[templates.index("OBJECT_TEMPLATES"):templates.index("STYLE_TEMPLATES")])
assert len(templates) == 27
texts = TEXTS + [t.replace("{}", word) for t, word in zip(templates, ["*", "sculpture", "<zorvo>"] * 9)]

with tempfile.TemporaryDirectory() as folder:
    open(f"{folder}/vocab.txt", "w", encoding="utf-8", newline="\n").write(VOCAB)
    tokenizer = BertTokenizerFast.from_pretrained(folder)
    open(f"{folder}/tokenizer_config.json", "w").write('{"do_lower_case": false, "tokenize_chinese_chars": false, "tokenizer_class": "BertTokenizer"}')
    cased = BertTokenizerFast.from_pretrained(folder)
assert len(tokenizer) == 30522 and (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id) == (101, 102, 0, 100)


def row(text, tokenizer=tokenizer):
    ids = tokenizer(text, add_special_tokens=False).input_ids
    return dict(text=text, ids=ids)


def full(text):
    ids = tokenizer(text, truncation=True, max_length=77, padding="max_length").input_ids
    assert len(ids) == 77
    return dict(text=text, ids=ids)


parts = dict(
    rows=[row(t) for t in texts],
    # The same vocabulary with its case, its accents and its Chinese words kept.
    cased=[row(t, cased) for t in ("A Photo of a café", "İstanbul", "中文字符 測試abc漢", "[SEP] [sep] CAT")],
    full=[full(t) for t in LONG],
    decoded=[dict(ids=ids, text=tokenizer.decode(ids, skip_special_tokens=True)) for ids in (full(t)["ids"] for t in (LONG[0], "unaffable, isn't it?", "é 中文 [MASK]!"))],
)
with open(os.path.join(HERE, "bert_tokens.json"), "w") as f:
    lines = [f'"{name}":[\n' + ",\n".join(json.dumps(r, separators=(",", ":")) for r in rows) + "\n]" for name, rows in parts.items()]
    f.write(f'{{"transformers":"{transformers.__version__}",\n' + ",\n".join(lines) + "\n}\n")
print({name: len(rows) for name, rows in parts.items()})
