"""What scikit-learn and plain NumPy say about the embeddings in tests/data/evaluators.

Makes embeddings.safetensors and expected.json, which tests/evaluator_reference.rs holds the evaluators
against. Needs numpy, scikit-learn and safetensors; the test itself needs neither Python nor these.

    python tests/evaluator_reference.py
"""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix, top_k_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

OUT = Path(__file__).parent / "data" / "evaluators"
DIM, CLASSES, TEMPLATES = 24, 9, 3
TRAIN, TEST, PICTURES = 270, 160, 70
# Scores that are nearer than this could be ordered differently in 32 bits.
MARGIN = 1e-6


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def apart(scores, right):
    """Of no row is the right candidate so near to another that rounding could swap them."""
    gaps = np.abs(scores - scores[np.arange(len(scores)), right][:, None])
    gaps[np.arange(len(scores)), right] = np.inf
    assert gaps.min() > MARGIN, gaps.min()


def classification(scores, labels):
    predicted = scores.argmax(axis=1)
    apart(scores, labels)
    apart(scores, predicted)
    matrix = confusion_matrix(labels, predicted, labels=range(CLASSES))
    present = matrix.sum(axis=1) > 0
    return {
        "top1": float((predicted == labels).mean()),
        "top5": float(top_k_accuracy_score(labels, scores, k=5, labels=range(CLASSES))),
        "mean_per_class": float((matrix.diagonal()[present] / matrix.sum(axis=1)[present]).mean()),
        "confusion_matrix": matrix.tolist(),
    }


def retrieval(images, texts, owner):
    scores = images.astype(np.float64) @ texts.astype(np.float64).T
    apart(scores, np.where(owner == np.arange(len(images))[:, None], scores, -np.inf).argmax(axis=1))
    apart(scores.T, owner)
    expected = {}
    for k in (1, 5, 10):
        first_texts = np.argsort(-scores, axis=1)[:, :k]
        first_images = np.argsort(-scores, axis=0)[:k].T
        found_texts = [(owner[first] == image).any() for image, first in enumerate(first_texts)]
        found_images = [owner[text] in first for text, first in enumerate(first_images)]
        expected[f"image_to_text_recall_at_{k}"] = float(np.mean(found_texts))
        expected[f"text_to_image_recall_at_{k}"] = float(np.mean(found_images))
    return expected


def main():
    rng = np.random.default_rng(20221201)
    centres = rng.normal(size=(CLASSES, DIM))
    # Uneven classes; the last one is rare.
    share = np.array([3, 3, 2, 2, 2, 2, 1, 1, 0.5])
    train_labels = rng.choice(CLASSES, TRAIN, p=share / share.sum())
    test_labels = rng.choice(CLASSES, TEST, p=share / share.sum())
    train = unit(centres[train_labels] + 1.3 * rng.normal(size=(TRAIN, DIM)))
    test = unit(centres[test_labels] + 1.3 * rng.normal(size=(TEST, DIM)))
    prompts = unit(centres[:, None] + 1.0 * rng.normal(size=(CLASSES, TEMPLATES, DIM)))

    images = unit(rng.normal(size=(PICTURES, DIM)))
    owner = np.repeat(np.arange(PICTURES), rng.integers(1, 6, PICTURES))
    texts = unit(images[owner] + 0.33 * rng.normal(size=(len(owner), DIM)))

    expected = {}
    classes = prompts.astype(np.float64).mean(axis=1)
    classes /= np.linalg.norm(classes, axis=1, keepdims=True)
    expected["zero_shot"] = classification(test.astype(np.float64) @ classes.T, test_labels)
    expected["retrieval"] = retrieval(images, texts, owner)

    for name, k, temperature in [("nearest_neighbours", 7, None), ("weighted_neighbours", 20, 0.07)]:
        weights = "uniform" if temperature is None else lambda d, t=temperature: np.exp((1.0 - d) / t)
        model = KNeighborsClassifier(k, weights=weights, metric="cosine", algorithm="brute")
        model.fit(train.astype(np.float64), train_labels)
        predicted = model.predict(test.astype(np.float64))
        expected[name] = {"k": k, "temperature": temperature, "top1": float((predicted == test_labels).mean())}

    expected["linear_probe"] = []
    for c in (0.1, 10.0, 1000.0):
        model = LogisticRegression(C=c, tol=1e-12, max_iter=100_000).fit(train.astype(np.float64), train_labels)
        result = classification(model.decision_function(test.astype(np.float64)), test_labels)
        expected["linear_probe"].append({"c": c, **result})

    OUT.mkdir(parents=True, exist_ok=True)
    tensors = {
        "train": train,
        "train_labels": train_labels.astype(np.int64),
        "test": test,
        "test_labels": test_labels.astype(np.int64),
        "prompts": prompts.reshape(-1, DIM),
        "images": images,
        "texts": texts,
        "owner": owner.astype(np.int64),
    }
    save_file(tensors, OUT / "embeddings.safetensors")
    (OUT / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    for name, result in expected.items():
        print(name, json.dumps(result)[:160])


if __name__ == "__main__":
    main()
