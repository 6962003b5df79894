"""Two small tokenizers and the ids that open_clip gives with the options of CLIPA and of SigLIP: a WordPiece one with
strip_sep_token, and a SentencePiece (unigram) one with clean: canonicalize, whose padding only tokenizer_config.json names.

    pip install open_clip_torch transformers tokenizers && python make.py [FOLDER]
"""

import json
import pathlib
import sys

from open_clip.tokenizer import HFTokenizer
from tokenizers import SentencePieceUnigramTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

HERE = pathlib.Path(__file__).parent
OUT = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
CAPTIONS = [
    "a photo of two dogs on a beach",
    "A_Photo,  of Two DOGS!",
    "the red circle, beside the blue square: (left)",
    "",
    "a dog " * 30,
    "it's 3 o'clock \\ [now] {x} ~",
]
CONTEXT = 12


def wordpiece(folder):
    words = sorted({word for text in CAPTIONS for word in "".join(c if c.isalnum() else " " for c in text.lower()).split()})
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, ",", "!", ":", "(", ")", "_", "'", "\\", "[", "]", "{", "}", "~"]
    folder.mkdir(exist_ok=True)
    BertTokenizerFast(vocab={token: at for at, token in enumerate(tokens)}).save_pretrained(folder)


def unigram(folder):
    folder.mkdir(exist_ok=True)
    made = SentencePieceUnigramTokenizer()
    made.train_from_iterator(CAPTIONS * 3, vocab_size=90, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>")
    made._tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made._tokenizer, eos_token="</s>", pad_token="</s>", unk_token="<unk>", model_max_length=CONTEXT
    )
    fast.save_pretrained(folder)


expected = {"captions": CAPTIONS, "context": CONTEXT}
for name, make, options in [
    ("wordpiece", wordpiece, dict(strip_sep_token=True)),
    ("unigram", unigram, dict(clean="canonicalize")),
]:
    folder = OUT / name
    make(folder)
    tokenizer = HFTokenizer(str(folder), context_length=CONTEXT, **options)
    expected[name] = tokenizer(CAPTIONS).tolist()
(OUT / "expected.json").write_text(json.dumps(expected))
