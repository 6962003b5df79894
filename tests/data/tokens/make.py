"""Makes the ids that the tests of src/data hold tokenizers against, from strings.json: run where open_clip_torch 3.3 (with
ftfy 6.3.1) and transformers 5 are installed.

merges.txt.gz has those merges of open_clip's bpe_simple_vocab_16e6.txt.gz (MIT, OpenAI) that the strings need, in their order;
open_clip's own SimpleTokenizer reads it and gives the ids.
"""
import gzip
import json
import pathlib

from open_clip.tokenizer import SimpleTokenizer, default_bpe
from transformers import BertTokenizerFast

HERE = pathlib.Path(__file__).parent
strings = json.loads((HERE / "strings.json").read_text())


class Noting(SimpleTokenizer):
    """Notes which merges are used."""

    def __init__(self):
        super().__init__()
        self.used = set()

    def bpe(self, token):
        word = tuple(token[:-1]) + (token[-1] + "</w>",)
        while len(word) > 1:
            pairs = list(zip(word, word[1:]))
            best = min(pairs, key=lambda pair: self.bpe_ranks.get(pair, float("inf")))
            if best not in self.bpe_ranks:
                break
            self.used.add(best)
            merged, i = [], 0
            while i < len(word):
                if word[i : i + 2] == best:
                    merged.append(word[i] + word[i + 1])
                    i += 2
                else:
                    merged.append(word[i])
                    i += 1
            word = tuple(merged)
        return super().bpe(token)


noting = Noting()
for text in strings:
    noting.encode(text)
merges = [merge for merge in noting.bpe_ranks if merge in noting.used]
lines = ["#version: 0.2"] + [" ".join(merge) for merge in merges]
(HERE / "merges.txt.gz").write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))

clip = SimpleTokenizer(bpe_path=str(HERE / "merges.txt.gz"))
whole = SimpleTokenizer()
for text in strings:
    ours = [clip.decoder[i] for i in clip.encode(text)]
    theirs = [whole.decoder[i] for i in whole.encode(text)]
    assert ours == theirs, text

# Words that the strings have, whole and in two, and every character.
words = sorted({word for text in strings for word in text.lower().split() if word.isascii() and word.isalpha()})[::3]
characters = sorted({c for text in strings for c in BertTokenizerFast({"[UNK]": 0}).backend_tokenizer.normalizer.normalize_str(text) if not c.isspace()})
pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
for piece in characters[::2] + ["##" + c for c in characters] + words + ["##" + word[2:] for word in words if len(word) > 4]:
    if piece not in pieces:
        pieces.append(piece)
(HERE / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
bert = BertTokenizerFast({piece: i for i, piece in enumerate(pieces)}, do_lower_case=True)

with open(HERE / "ids.jsonl", "w") as out:
    for text in strings:
        ids = bert(text, add_special_tokens=False).input_ids
        out.write(json.dumps({"text": text, "clip": clip.encode(text), "bert": ids}, separators=(",", ":")) + "\n")
print(len(strings), "strings,", len(merges), "merges,", len(pieces), "pieces")
print("sha256 of the merges:", __import__("hashlib").sha256("".join(f"{a} {b}\n" for a, b in whole.bpe_ranks).encode()).hexdigest())
