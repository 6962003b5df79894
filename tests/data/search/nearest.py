"""Makes embeddings, queries and what NumPy finds nearest: python tests/data/search/nearest.py

Numbers are sixteenths, so that their products are exact in any order of additions: equal scores are equal, and of those the
earlier image comes first, as in a stable sort.
"""

import json
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
IMAGES, DIM, QUERIES = 9_001, 12, 4

rng = np.random.default_rng(8)
images = rng.integers(-8, 9, (IMAGES, DIM)).astype(np.float32) / 16
# Copies, near and far from their originals.
images[[5, 4_096, 9_000]] = images[4_095]
queries = rng.integers(-8, 9, (QUERIES, DIM)).astype(np.float32) / 16
queries[0] = images[4_095]
found = []
for query in queries:
    scores = images @ query
    best = np.argsort(-scores, kind="stable")[:25]
    found.append([[int(row), float(scores[row])] for row in best])
np.save(HERE / "images.npy", (images * 16).astype(np.int8))
np.save(HERE / "queries.npy", (queries * 16).astype(np.int8))
(HERE / "nearest.json").write_text(json.dumps(found) + "\n")
