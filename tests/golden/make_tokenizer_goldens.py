"""Writes tests/golden/tokenizers/: small tokenizers, lines in many scripts, and the ids that the reference
implementations give for each line.

    python3 -m pip install tokenizers sentencepiece
    python3 tests/golden/make_tokenizer_goldens.py [FOLDER_WITH_GPT2_FILES]

The lines are made from the sentences below with a fixed seed. NAME.ids holds, for each line, the number of ids and
their FNV-1a hash's lower half; the first row names the library and its version. GPT-2's own files are too large to stand here:
the reader looks for them elsewhere and its test is skipped without them.
"""

import json
import pathlib
import random
import sys
import unicodedata

import sentencepiece
import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

FOLDER = pathlib.Path(__file__).parent / "tokenizers"

SENTENCES = """The quick brown fox jumps over the lazy dog, doesn't it? I'm sure they'll say we've won; he'd SHOUT: "IT'S MINE, YOU'RE LATE!"
In 1984 there were 3,141,592 reasons (some say 42) to read 'Nineteen Eighty-Four'... and 7 not to.
Les œuvres complètes coûtent 19,99 €; l'élève naïf n'a pas reçu sa première leçon à l'été où Noël tombait.
Übergrößenträger fürchten den Straßenverkehr; ÄÖÜ und ẞ stehen am Anfang. Weiß jemand, wie spät es ist?
El pingüino comió piñas en España; ¿qué más da? ¡Olé! A ação não começou às três horas, vovô.
Příliš žluťoučký kůň úpěl ďábelské ódy. Zażółć gęślą jaźń. Árvíztűrő tükörfúrógép. Şişli'de İstanbul ve ısı.
Съешь же ещё этих мягких французских булок, да выпей чаю. Їжак єсть ґанок; Ђурђевдан и Љубав.
Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. Ὁ βίος βραχύς, ἡ δὲ τέχνη μακρή. ΟΔΥΣΣΕΥΣ
نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر ومغلف بجلد أزرق ١٢٣٤٥ گچپژ
דג סקרן שט בים מאוכזב ולפתע מצא לו חברה. בְּרֵאשִׁית בָּרָא אֱלֹהִים
ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण का सर्वनाश करने वाले १२३ हिन्दी क़िला
আমার সোনার বাংলা, আমি তোমায় ভালোবাসি। ১২৩৪
தமிழ் மொழி மிகவும் பழமையான மொழி ஆகும். తెలుగు భాష చాలా మధురమైనది ಕನ್ನಡ ನಾಡು മലയാളം
เป็นมนุษย์สุดประเสริฐเลิศคุณค่า กว่าบรรดาฝูงสัตว์เดรัจฉาน ๑๒๓ ພາສາລາວ ភាសាខ្មែរ မြန်မာဘာသာ
いろはにほへと ちりぬるを。カタカナとひらがな、漢字も「ある」。ｶﾞｷﾞｸﾞ 東京は２０２４年も暑い！
天地玄黃，宇宙洪荒。日月盈昃，辰宿列張。人人生而自由，在尊严和权利上一律平等。㐀㐁𠀀𠀁𪜀
다람쥐 헌 쳇바퀴에 타고파. 모든 인간은 태어날 때부터 자유로우며 가나다
ሁሉም ሰው በነፃነት ተወልዷል። ქართული ენა ანბანი Հայերեն լեզու ᏣᎳᎩ ᐃᓄᒃᑎᑐᑦ ᚠᚢᚦᚨᚱᚲ
Tiếng Việt có nhiều dấu: ặ ệ ỗ ử ỵ. Việt Nam e\u0301 a\u0308\u0323 o\u0302\u0301 n\u0303
def f(x):¶\treturn x**2 if x != 0 else None  # comment¶¶¶for (int i = 0; i < 10; ++i) { a[i] += b->c; }\r¶
<html lang="en">&nbsp;</html> {"key": [1, 2.5e-3, null]} https://example.org/~user?q=a%20b&c=d#e user@example.com
😀 👩‍👩‍👧‍👦 🇫🇷 ❤️ ☃ ✓ → ∑∫√∞ ≠ ½ ⅓ Ⅷ ² ₃ ① ㊗ 𝔘𝔫𝔦 𝒸𝑜𝒹𝑒 ﬁ ﬂ ǆ ŉ K Å ſ 'ſ 'S 'T 'LL 'Re
\u200b\u200d\ufeff\u00ad\u2028\u2029\u0085\u00a0\u3000\u1680 \x00\x01\x7f\ufffd \ue000 tab\tverti\x0bform\x0c
<|endoftext|> [CLS] [SEP] [MASK] [UNK] [PAD] <|eot|> <s> </s> <unk> ## ##ing""".split("\n")
SENTENCES = [sentence.replace("¶", "\n") for sentence in SENTENCES]
GPT2 = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
LLAMA3 = (r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"""
          r"""|\s*[\r\n]+|\s+(?!\S)|\s+""")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def make_lines(count, seed):
    """Sentences whole and cut, mixed with each other, with odd white space, marks, digits and single characters."""
    draw = random.Random(seed)
    words = [w for s in SENTENCES for w in s.split(" ") if w]
    spaces = [" "] * 12 + ["  ", "   ", "\t", "\n", "\n\n", "\r\n", " \n", "\n ", "\u00a0", "\u3000", "", ""]
    marks = [".", ",", "!?", "...", "'", "''s", "'S", "'lL", "\u2019s", "-", "_", "(", ")\n", "#\r\n", "%", "$", "\u0301"]
    letters = [chr(c) for c in range(0x20, 0x30000) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]
    lines = list(SENTENCES) + [s.upper() for s in SENTENCES] + [s.title() for s in SENTENCES]
    while len(lines) < count:
        line = ""
        for _ in range(draw.randint(1, 14)):
            kind = draw.random()
            if kind < 0.7: line += draw.choice(words)
            elif kind < 0.8: line += str(draw.randrange(10 ** draw.randint(1, 9)))
            elif kind < 0.9: line += draw.choice(marks)
            else: line += "".join(draw.choice(letters) for _ in range(draw.randint(1, 4)))
            line += draw.choice(spaces)
        lines.append(line)
    return lines


def fnv(ids):
    value = 0xCBF29CE484222325
    for i in ids:
        value = ((value ^ i) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


def is_reclassified(char):
    """The tokenizers library has the categories of Unicode 8 where it cleans text for BERT, and later ones elsewhere;
    characters that were punctuation, marks or format characters in Unicode 3.2 already are safe."""
    now, then = unicodedata.category(char), unicodedata.ucd_3_2_0.category(char)
    return now != then and (now[0] in "PSM" or now == "Cf" or then[0] in "PSM")


def write_ids(name, encode, lines, library):
    rows = [f"# {library.__name__} {library.__version__}"]
    for line in lines:
        if "bert" in name and any(map(is_reclassified, unicodedata.normalize("NFD", line))):
            rows.append("-")  # the reader passes over it
            continue
        ids = encode(line)
        rows.append(f"{len(ids)} {fnv(ids) & 0xFFFFFFFF:08x}")
    (FOLDER / f"{name}.ids").write_text("\n".join(rows) + "\n")


def byte_bpe(cutter, vocab_size, specials, ignore_merges=False, normalizer=None):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = cutter
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer: tokenizer.normalizer = normalizer
    tokenizer.train_from_iterator(SENTENCES * 3, trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2, show_progress=False))
    return tokenizer


def split(pattern):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def byte_bpes():
    gpt2 = byte_bpe(pre_tokenizers.ByteLevel(add_prefix_space=False), 700, ["<|endoftext|>"])
    prefixed = byte_bpe(pre_tokenizers.ByteLevel(add_prefix_space=True), 400, ["<s>", "</s>", "<mask>"])
    prefixed.add_special_tokens([AddedToken("<mask>", lstrip=True, rstrip=False)])
    prefixed.add_tokens([AddedToken("naïf", rstrip=True)])
    prefixed.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0))
    llama3 = byte_bpe(split(LLAMA3), 900, [], ignore_merges=True)
    llama3.add_special_tokens(["<|begin|>", "<|endoftext|>", "<|eot|>"])
    llama3.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
        single="<|begin|> $A", pair="<|begin|> $A <|begin|>:1 $B:1", special_tokens=[("<|begin|>", 900)])])
    qwen2 = byte_bpe(split(QWEN2), 600, [], normalizer=normalizers.NFC())
    qwen2.add_special_tokens(["<|endoftext|>", "<|im_start|>"])
    smollm = byte_bpe(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False)]), 500, ["<|endoftext|>"])
    return {"gpt2": gpt2, "prefixed": prefixed, "llama3": llama3, "qwen2": qwen2, "smollm": smollm}


def word_piece(lower):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(SENTENCES * 2, trainers.WordPieceTrainer(
        vocab_size=900, special_tokens=specials, show_progress=False, limit_alphabet=400))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return tokenizer


def main():
    FOLDER.mkdir(exist_ok=True)
    lines = make_lines(2000, 5)
    (FOLDER / "lines.json").write_text(json.dumps(lines, ensure_ascii=False, indent=0) + "\n")
    for name, tokenizer in {**byte_bpes(), "bert": word_piece(True), "bert_cased": word_piece(False)}.items():
        tokenizer.save(str(FOLDER / f"{name}.json"), pretty=False)
        tokenizer = Tokenizer.from_file(str(FOLDER / f"{name}.json"))
        write_ids(name, lambda line: tokenizer.encode(line).ids, lines, tokenizers)
        if name == "bert":
            vocab = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
            (FOLDER / "vocab.txt").write_text("".join(token + "\n" for token, _ in vocab))
    for kind in ("unigram", "bpe"):
        sentences = [s.replace("...", "…") for s in SENTENCES[:9]] * 4  # no ties, which versions break differently
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences), model_prefix=str(FOLDER / f"sp_{kind}"), model_type=kind, vocab_size=800,
            normalization_rule_name="identity", byte_fallback=True, hard_vocab_limit=False, minloglevel=2, num_threads=1)
        (FOLDER / f"sp_{kind}.vocab").unlink()
        processor = sentencepiece.SentencePieceProcessor(model_file=str(FOLDER / f"sp_{kind}.model"))
        write_ids(f"sp_{kind}", lambda line: [processor.bos_id()] + processor.encode(line), lines, sentencepiece)
    if len(sys.argv) > 1:
        files = pathlib.Path(sys.argv[1])
        tokenizer = Tokenizer(models.BPE.from_file(str(files / "encoder.json"), str(files / "vocab.bpe")))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.add_special_tokens(["<|endoftext|>"])
        write_ids("released_gpt2", lambda line: tokenizer.encode(line).ids, lines, tokenizers)


if __name__ == "__main__":
    main()
