"""Loads exported folders with open_clip and holds the embeddings against those beside the weights: python round_trip.py FOLDER..."""

import sys

import open_clip
import safetensors.torch as st
import torch

for folder in sys.argv[1:]:
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    expected = st.load_file(f"{folder}/expected")
    with torch.no_grad():
        images = model.encode_image(expected["image"], normalize=True)
        texts = model.encode_text(expected["text"].long(), normalize=True)
    for what, got in [("images", images), ("texts", texts)]:
        apart = (got - expected[what]).abs().max().item()
        print(f"{folder.rsplit('/')[-1]}: {what} {apart:.1e}")
        assert apart <= 1e-5, (folder, what, apart)
