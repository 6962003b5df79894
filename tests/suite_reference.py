"""What open_clip and scikit-learn say about the small suite in tests/data/evaluators/suite.

Makes a tiny open_clip model, folders as CLIP_benchmark's exporter writes them, and expected.json, which
tests/evaluate_command.rs holds `flip evaluate` against. Needs torch, open_clip_torch, scikit-learn, safetensors and
Pillow; the test itself needs none of these.

    python tests/suite_reference.py [FOLDER]
"""

import io
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.metrics import average_precision_score, roc_auc_score

OUT = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data" / "evaluators" / "suite"
SIZE, CONTEXT = 32, 12
WORDS = [f"word{i}" for i in range(60)]
CONFIG = {
    "model_cfg": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": SIZE, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": CONTEXT, "vocab_size": len(WORDS) + 2, "width": 32, "heads": 2, "layers": 2},
    },
    "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bicubic", "resize_mode": "shortest"},
}
# Scores that are nearer than this could be ordered differently by another order of additions.
MARGIN = 1e-5
SEED = 2


def make_model(rng):
    cfg = CONFIG["model_cfg"]
    model = open_clip.model.CLIP(cfg["embed_dim"], cfg["vision_cfg"], cfg["text_cfg"])
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if name != "logit_scale":
                noise = torch.from_numpy(rng.normal(size=tuple(parameter.shape)).astype(np.float32))
                # Small biases and positions: images and texts would all be alike.
                alike = parameter.ndim < 2 or "positional" in name
                scale = 0.05 if alike else 1.5 / parameter.shape[-1] ** 0.5
                parameter.copy_(noise * scale + (1.0 if parameter.ndim < 2 and name.endswith("weight") else 0.0))
    return model.eval()


def tokens(text):
    """As a WordPiece tokenizer of whole words: ids, then padding. The text is pooled at the highest id, as open_clip does."""
    ids = [2 + WORDS.index(word) for word in text.split()]
    return ids[:CONTEXT] + [0] * (CONTEXT - len(ids))


def image(rng, hue):
    # In blocks, which pack well.
    blocks = rng.integers(0, 150, (8, 8, 3)) + np.asarray(hue)
    pixels = blocks.repeat(SIZE // 8, axis=0).repeat(SIZE // 8, axis=1)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def encode(model, images):
    mean, std = (torch.tensor(CONFIG["preprocess_cfg"][name]).view(3, 1, 1) for name in ("mean", "std"))
    planes = [torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) / 255 for image in images]
    batch = torch.stack([(plane - mean) / std for plane in planes])
    with torch.no_grad():
        projection, model.visual.proj = model.visual.proj, None
        features = model.visual(batch)
        model.visual.proj = projection
        return features.numpy(), model.encode_image(batch, normalize=True).numpy().astype(np.float64)


def encode_texts(model, texts):
    with torch.no_grad():
        return model.encode_text(torch.tensor([tokens(text) for text in texts]), normalize=True).numpy().astype(np.float64)


def class_vectors(model, names, templates):
    """As CLIP_benchmark's zero-shot classifier: the mean over templates, normalised."""
    vectors = [encode_texts(model, [t.replace("{c}", name) for t in templates]).mean(axis=0) for name in names]
    return np.stack([vector / np.linalg.norm(vector) for vector in vectors])


def write_shard(path, samples):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number, (picture, members) in enumerate(samples):
            png = io.BytesIO()
            picture.save(png, "png")
            for ending, content in [("png", png.getvalue()), *members.items()]:
                member = tarfile.TarInfo(f"s{number:04d}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def write_set(folder, split, samples, kind="classification", names=(), templates=()):
    root = OUT / "sets" / folder
    half = (len(samples) + 1) // 2
    write_shard(root / split / "0.tar", samples[:half])
    write_shard(root / split / "1.tar", samples[half:])
    (root / split / "nshards.txt").write_text("2\n")
    (root / "dataset_type.txt").write_text(kind + "\n")
    if names:
        (root / "classnames.txt").write_text("\n".join(names) + "\n")
        (root / "zeroshot_classification_templates.txt").write_text("\n".join(templates) + "\n")


def apart(scores):
    """No two scores of a row or a column are so near that rounding could swap them."""
    for rows in (scores, scores.T):
        gaps = np.diff(np.sort(rows, axis=1), axis=1)
        assert gaps.size == 0 or gaps.min() > MARGIN / 100, gaps.min()


def npy(values):
    out = io.BytesIO()
    np.save(out, np.asarray(values, dtype=np.int64))
    return out.getvalue()


def classification(model, rng, folder, names, templates, n, train=0):
    hues = rng.integers(0, 100, (len(names), 3))
    expected = {}
    for split, count in (("train", train), ("test", n)):
        labels = rng.integers(0, len(names), count)
        if not count:
            continue
        images = [image(rng, hues[label]) for label in labels]
        samples = [(picture, {"cls": str(label).encode()}) for picture, label in zip(images, labels)]
        write_set(folder, split, samples, names=names, templates=templates)
    features, z = encode(model, images)
    scores = z @ class_vectors(model, names, templates).T
    apart(scores)
    right = scores.argmax(axis=1) == labels
    expected["top1"] = float(right.mean())
    expected["mean_per_class"] = float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))
    if len(names) == 2:
        expected["roc_auc"] = float(roc_auc_score(labels == 1, scores[:, 1] - scores[:, 0]))
    return expected, features


def eleven_points(scores, shown):
    """PASCAL VOC's measure of 2007: the best precision at recalls of at least 0, 0.1, ..., 1, averaged."""
    order = np.argsort(-scores)
    found = np.cumsum(shown[order])
    precision = found / (np.arange(len(order)) + 1)
    return np.mean([precision[10 * found >= tenth * found[-1]].max() for tenth in range(11)])


def multi_label(model, rng, folder, names, templates, n):
    hues = rng.integers(0, 60, (len(names), 3))
    shown = rng.random((n, len(names))) < 0.35
    images = [image(rng, hues[row].sum(axis=0) if row.any() else [0, 0, 0]) for row in shown]
    samples = [(picture, {"npy": npy(row)}) for picture, row in zip(images, shown)]
    write_set(folder, "test", samples, "multilabel", names, templates)
    scores = encode(model, images)[1] @ class_vectors(model, names, templates).T
    apart(scores)
    areas = [average_precision_score(shown[:, c], scores[:, c]) for c in range(len(names))]
    elevens = [eleven_points(scores[:, c], shown[:, c]) for c in range(len(names))]
    return {"map": float(np.mean(areas)), "map_11_points": float(np.mean(elevens)), "chance": float(shown.mean())}


def retrieval(model, rng, folder, n):
    images = [image(rng, rng.integers(0, 165, 3)) for _ in range(n)]
    captions = [[" ".join(rng.choice(WORDS, 4)) for _ in range(rng.integers(1, 4))] for _ in range(n)]
    samples = [(picture, {"txt": "\n".join(texts).encode()}) for picture, texts in zip(images, captions)]
    write_set(folder, "test", samples, "retrieval")
    owner = np.repeat(np.arange(n), [len(texts) for texts in captions])
    scores = encode(model, images)[1] @ encode_texts(model, [text for texts in captions for text in texts]).T
    expected = {}
    for k in (1, 5, 10):
        texts = np.argsort(-scores, axis=1)[:, :k]
        pictures = np.argsort(-scores, axis=0)[:k].T
        expected[f"image_to_text_recall_at_{k}"] = float(np.mean([(owner[row] == i).any() for i, row in enumerate(texts)]))
        expected[f"text_to_image_recall_at_{k}"] = float(np.mean([owner[i] in row for i, row in enumerate(pictures)]))
    return expected


def main():
    rng = np.random.default_rng(SEED)
    model = make_model(rng)
    (OUT / "model").mkdir(parents=True, exist_ok=True)
    (OUT / "model" / "open_clip_config.json").write_text(json.dumps(CONFIG, indent=1) + "\n")
    state = {name: value.contiguous() for name, value in model.state_dict().items() if name != "attn_mask"}
    save_file(state, OUT / "model" / "open_clip_model.safetensors")
    (OUT / "model" / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", *WORDS]) + "\n")

    templates = ["word50 {c}", "{c} word51 word52"]
    expected = {}
    expected["pets"], features = classification(model, rng, "wds_vtab-pets", WORDS[:6], templates, 60, train=72)
    expected["hateful_memes"], _ = classification(model, rng, "more/wds_hateful_memes", WORDS[6:8], templates, 40)
    expected["voc2007_multilabel"] = multi_label(model, rng, "wds_voc2007_multilabel", WORDS[8:13], templates, 40)
    expected["flickr8k"] = retrieval(model, rng, "wds_flickr8k", 24)
    expected["first_features"] = [round(float(value), 6) for value in features[0]]
    (OUT / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


main()
