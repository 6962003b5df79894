"""open_clip and transformers themselves, for tests/exchange/peers.rs.

    peers.py make DIR    checkpoints of ViT-B/32's size with random weights, inputs, and what the tools make of them
    peers.py check DIR   loads the folders that flip exported, and compares embeddings, tensors and token ids

Exits with 77 and a reason where the packages are missing.
"""

import json
import pathlib
import shutil
import sys

try:
    import open_clip
    import safetensors.torch as st
    import torch
    import torch.nn.functional as F
    import transformers
    from open_clip.push_to_hf_hub import save_config_for_hf
    from open_clip.tokenizer import default_bpe
except ImportError as error:
    print(f"open_clip_torch, torch, transformers and safetensors are needed: {error}")
    sys.exit(77)

# Embeddings of unit length.
TOLERANCE = 1e-5
CAPTIONS = [
    "a photo of a cat",
    "Two dogs, 3 cats & the parrot's cage!",
    "  a   very\tlong caption " + "of many words " * 40,
    "",
    "naïve café — 東京 🙂",
]


def perturb(model):
    """No parameter stays at zero or one, so that each of them shows."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() < 2:
                parameter.add_(0.02 * torch.randn_like(parameter))
            else:
                parameter.add_(0.2 * parameter.std() * torch.randn_like(parameter))


def batch(size, tokens):
    torch.manual_seed(2)
    return {"image": torch.randn(4, 3, size, size), "text": tokens.to(torch.int64)}


def embed_open_clip(model, inputs):
    model.eval()
    with torch.no_grad():
        images = model.encode_image(inputs["image"], normalize=True)
        texts = model.encode_text(inputs["text"], normalize=True)
    return {"images": images.contiguous(), "texts": texts.contiguous()}


def embed_transformers(model, inputs):
    model.eval()
    with torch.no_grad():
        vision = model.vision_model(pixel_values=inputs["image"]).pooler_output
        text = model.text_model(input_ids=inputs["text"]).pooler_output
        images = F.normalize(model.visual_projection(vision), dim=-1)
        texts = F.normalize(model.text_projection(text), dim=-1)
    return {"images": images.contiguous(), "texts": texts.contiguous()}


def make_open_clip(folder):
    folder.mkdir()
    model = open_clip.create_model("ViT-B-32", pretrained_image=False)
    perturb(model)
    st.save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    save_config_for_hf(model, folder / "open_clip_config.json", open_clip.get_model_config("ViT-B-32"))
    shutil.copy(default_bpe(), folder)
    tokens = open_clip.get_tokenizer("ViT-B-32")(CAPTIONS)
    inputs = batch(224, tokens)
    st.save_file(inputs | embed_open_clip(model, inputs), folder / "expected" )
    # The same weights at another picture size, as open_clip itself resamples them.
    larger = open_clip.create_model(f"local-dir:{folder}", force_image_size=288)
    torch.manual_seed(3)
    inputs = {"image": torch.randn(2, 3, 288, 288), "text": tokens}
    st.save_file(inputs | embed_open_clip(larger, inputs), folder / "expected_288")


def make_transformers(folder):
    config = transformers.CLIPConfig()
    model = transformers.CLIPModel(config)
    perturb(model)
    model.save_pretrained(folder, max_shard_size="200MB")
    assert (folder / "model.safetensors.index.json").exists()
    tokens = open_clip.get_tokenizer("ViT-B-32")(CAPTIONS)
    inputs = batch(224, tokens)
    st.save_file(inputs | embed_transformers(model, inputs), folder / "expected")


def close(what, got, expected):
    worst = max((got[name] - expected[name]).abs().max().item() for name in ("images", "texts"))
    print(f"{what}: largest difference {worst:.2e}")
    assert worst <= TOLERANCE, what


def state(folder):
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= st.load_file(path)
    return tensors


def same_tensors(what, got, expected):
    assert got.keys() == expected.keys(), (what, got.keys() ^ expected.keys())
    for name in expected:
        assert got[name].shape == expected[name].shape, (what, name)
        assert torch.equal(got[name].view(torch.int32), expected[name].view(torch.int32)), (what, name)
    print(f"{what}: {len(got)} tensors are the same bit for bit")


def check_open_clip(folder, expected):
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    close(f"{folder.name} in open_clip", embed_open_clip(model, expected), expected)
    config = json.loads((folder / "open_clip_config.json").read_text())
    assert tuple(model.visual.image_mean) == tuple(config["preprocess_cfg"]["mean"])


def check_transformers(folder, expected):
    model, loading = transformers.CLIPModel.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values()), loading
    close(f"{folder.name} in transformers", embed_transformers(model, expected), expected)
    assert type(transformers.AutoModel.from_pretrained(folder)) is transformers.CLIPModel
    assert transformers.CLIPImageProcessor.from_pretrained(folder).size["shortest_edge"] == 224


def check_ids(folder, tokenize):
    """Ids [n, context] of the captions, as flip wrote them."""
    wanted = json.loads((folder / "ids.json").read_text())
    got = tokenize(wanted["captions"]).tolist()
    end = wanted["ends_at"]
    for caption, got, ours in zip(wanted["captions"], got, wanted["ids"]):
        # What follows the end token of a causal encoder is never seen.
        length = 1 + ours.index(end) if end is not None else len(ours)
        assert got[:length] == ours[:length], (folder.name, caption, got, ours)
    print(f"{folder.name}: token ids of {len(wanted['ids'])} captions agree")


def hub_tokenizer(folder, context):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return lambda captions: tokenizer(
        captions, padding="max_length", truncation=True, return_tensors="pt"
    ).input_ids


def check(root):
    for peer in ("open_clip", "transformers"):
        expected = st.load_file(root / peer / "expected")
        check_open_clip(root / f"{peer}_to_open_clip", expected)
        check_transformers(root / f"{peer}_to_transformers", expected)
        same_tensors(peer, state(root / f"{peer}_to_{peer}"), state(root / peer))
    folder = root / "open_clip_to_open_clip"
    check_ids(folder, open_clip.get_tokenizer(f"local-dir:{folder}"))
    check_ids(folder, open_clip.get_tokenizer("ViT-B-32"))
    folder = root / "open_clip_to_transformers"
    check_ids(folder, hub_tokenizer(folder, 77))
    processor = transformers.CLIPProcessor.from_pretrained(folder)
    assert processor(text=["a cat"], return_tensors="pt").input_ids.shape[1] == 4
    # FLIP's kind of model, with a vocabulary that flip trained.
    folder = root / "flip_to_open_clip"
    expected = st.load_file(folder / "expected")
    expected["text"] = expected["text"].to(torch.int64)
    check_open_clip(folder, expected)
    check_ids(folder, open_clip.get_tokenizer(f"local-dir:{folder}"))


if __name__ == "__main__":
    command, root = sys.argv[1], pathlib.Path(sys.argv[2])
    torch.set_num_threads(2)
    if command == "make":
        make_open_clip(root / "open_clip")
        make_transformers(root / "transformers")
    else:
        check(root)
    print("versions: open_clip", open_clip.__version__, "torch", torch.__version__, "transformers", transformers.__version__)
