"""open_clip and transformers themselves, for tests/exchange/peers.rs.

    peers.py make DIR    checkpoints of ViT-B/32's size with random weights, inputs, and what the tools make of them
    peers.py check DIR   loads the folders that flip exported, and compares embeddings, tensors and token ids
    peers.py onnx DIR    runs the ONNX graphs in every folder of DIR, and compares embeddings
    peers.py benchmark DIR   a small open_clip model, a CLIP_benchmark folder made of pictograms, and the accuracy of
                             the one on the other

Exits with 77 and a reason where the packages are missing.
"""

import io
import json
import os
import pathlib
import shutil
import sys
import tarfile

try:
    import open_clip
    import safetensors.torch as st
    import torch
    import torch.nn.functional as F
    import transformers
    from open_clip.push_to_hf_hub import save_config_for_hf
    from open_clip.tokenizer import default_bpe
    from PIL import Image
except ImportError as error:
    print(f"open_clip_torch, torch, transformers and safetensors are needed: {error}")
    sys.exit(77)

# A part of the pictograms; FLIP_PICTOGRAMS names a folder with all of them.
DATA = pathlib.Path(os.environ.get("FLIP_PICTOGRAMS", pathlib.Path(__file__).parent / "data" / "pictograms"))
VALIDATION = "pictograms-val-00000.tar"
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


# Embeddings of unit length, of an ONNX runtime.
ONNX_TOLERANCE = 1e-4


def onnx_graphs(root):
    try:
        import numpy
        import onnx
        import onnxruntime
    except ImportError as error:
        print(f"onnx and onnxruntime are needed: {error}")
        sys.exit(77)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        expected = {name: tensor.numpy() for name, tensor in st.load_file(folder / "expected").items()}
        for graph, name, into in (("image", "pixels", "float32"), ("text", "ids", "int64")):
            path = folder / f"{graph}.onnx"
            onnx.checker.check_model(str(path), full_check=True)
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            assert session.get_inputs()[0].shape[0] == "batch" == session.get_outputs()[0].shape[0]
            about = session.get_modelmeta().custom_metadata_map
            assert {"image.mean", "image.std", "logit_scale"} <= about.keys(), about
            first, worst = 0, {}
            for batch in (1, 3, 17):
                rows = slice(first, first + batch)
                (got,) = session.run(None, {name: expected[graph][rows].astype(into)})
                assert got.shape == expected[f"{graph}s"][rows].shape
                worst[batch] = float(numpy.abs(got - expected[f"{graph}s"][rows]).max())
                first += batch
            print(f"{folder.name} {graph}: largest difference by batch", {k: f"{v:.2e}" for k, v in worst.items()})
            assert max(worst.values()) <= ONNX_TOLERANCE, (folder.name, graph, worst)
    print("versions: onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)


# A small model: one that tells pictures apart after its projection has been fitted, in seconds.
SMALL = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 96, "layers": 3, "width": 192, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
TASKS = ("group", "subgroup")


def pictograms(shard):
    """(key, bytes of the picture, its extension, its json) of every sample of a shard."""
    samples = {}
    with tarfile.open(DATA / shard) as archive:
        for member in archive:
            key, _, extension = member.name.partition(".")
            samples.setdefault(key, {})[extension] = archive.extractfile(member).read()
    for key, parts in samples.items():
        extension = "png" if "png" in parts else "jpg"
        yield key, parts[extension], extension, json.loads(parts["json"])


def benchmark_folder(folder, task):
    """As CLIP_benchmark's exporter lays a data set out."""
    (folder / "test").mkdir(parents=True)
    phrases = [entry["phrase"] for entry in task["classes"]]
    (folder / "classnames.txt").write_text("\n".join(phrases) + "\n")
    templates = [template.replace("{}", "{c}") for template in task["templates"]]
    (folder / "zeroshot_classification_templates.txt").write_text("\n".join(templates) + "\n")
    (folder / "test" / "nshards.txt").write_text("1")
    with tarfile.open(folder / "test" / "0.tar", "w") as archive:
        for key, picture, extension, about in pictograms(VALIDATION):
            for ending, contents in ((extension, picture), ("cls", str(about[task["label_field"]]).encode())):
                member = tarfile.TarInfo(f"{key}.{ending}")
                member.size = len(contents)
                archive.addfile(member, io.BytesIO(contents))


def decoded(contents, preprocess):
    return torch.stack([preprocess(Image.open(io.BytesIO(picture))) for picture in contents])


def class_vectors(model, tokenizer, task):
    vectors = []
    for entry in task["classes"]:
        prompts = [template.format(entry["phrase"]) for template in task["templates"]]
        vector = model.encode_text(tokenizer(prompts), normalize=True).mean(0)
        vectors.append(vector / vector.norm())
    return torch.stack(vectors)


def fit(model, preprocess, tokenizer, tasks):
    """Fits the projection of the image encoder, by least squares, to give each picture's classes the highest
    similarities: of the very pictures that are asked for, as all that counts is that some answers are right and some
    wrong, most of them clearly."""
    samples = list(pictograms(VALIDATION))
    pixels = decoded([picture for _, picture, _, _ in samples], preprocess)
    shape, model.visual.proj = model.visual.proj.shape, None
    features = torch.cat([model.visual(part) for part in pixels.split(128)]).double()
    mean = features.mean(0)
    features = features - mean
    vectors, wanted = [], []
    for task in tasks:
        of_classes = class_vectors(model, tokenizer, task).double()
        labels = torch.tensor([about[task["label_field"]] for *_, about in samples])
        one_hot = F.one_hot(labels, len(of_classes)).double()
        vectors.append(of_classes - of_classes.mean(0))
        wanted.append(one_hot - one_hot.mean(0))
    # There is no bias, so the mean picture is held at zero.
    gram = features.T @ features + 1e3 * len(features) * torch.outer(mean, mean)
    ridge = 3e-1 * (features**2).sum() / len(gram) * torch.eye(len(gram), dtype=gram.dtype)
    similarity = torch.linalg.solve(gram + ridge, features.T @ torch.cat(wanted, 1))
    # Without the directions in which classes hardly differ: they would need weights so large that pictures whose
    # embedding is nearly zero turn around when one pixel changes by one.
    weights = similarity @ torch.linalg.pinv(torch.cat(vectors).T, rtol=1e-2)
    model.visual.proj = torch.nn.Parameter((weights / weights.std()).float().contiguous())
    assert model.visual.proj.shape == shape


def smooth(seed, width, height):
    """A picture of any size whose pixels differ from their neighbours."""
    torch.manual_seed(seed)
    coarse = torch.rand(1, 3, height // 7 + 2, width // 7 + 2)
    fine = F.interpolate(coarse, (height, width), mode="bicubic") + 0.1 * torch.randn(1, 3, height, width)
    return Image.fromarray((fine[0].clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy())


def benchmark(root):
    torch.manual_seed(4)
    folder = root / "model"
    folder.mkdir()
    model = open_clip.model.CLIP(**SMALL)
    perturb(model)
    model.eval()
    constants = {"mean": list(open_clip.OPENAI_DATASET_MEAN), "std": list(open_clip.OPENAI_DATASET_STD)}
    preprocessing = constants | {"interpolation": "bicubic", "resize_mode": "shortest"}
    config = {"model_cfg": SMALL, "preprocess_cfg": preprocessing}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    shutil.copy(default_bpe(), folder)
    st.save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    _, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    tasks = [task for task in json.loads((DATA / "classes.json").read_text())["tasks"] if task["task"] in TASKS]
    with torch.no_grad():
        fit(model, preprocess, tokenizer, tasks)
        st.save_file(model.state_dict(), folder / "open_clip_model.safetensors")

        # What a user of open_clip would do from here on.
        model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
        model.eval()
        samples = list(pictograms(VALIDATION))
        pixels = decoded([picture for _, picture, _, _ in samples], preprocess)
        images = torch.cat([model.encode_image(part, normalize=True) for part in pixels.split(128)])
        squares(root / "squares", preprocess, samples)
        result = {"n": len(samples)}
        for task in tasks:
            benchmark_folder(root / task["task"], task)
            vectors = class_vectors(model, tokenizer, task)
            labels = torch.tensor([about[task["label_field"]] for *_, about in samples])
            result[task["task"]] = int(((images @ vectors.T).argmax(1) == labels).sum())
    (root / "expected.json").write_text(json.dumps(result))
    st.save_file({"images": images.contiguous()}, root / "expected")
    pictures(root / "pictures", preprocess, samples[:40])


def square(picture, preprocess):
    """What open_clip's transform makes of a picture before it becomes a tensor."""
    picture = picture.convert("RGB")
    for step in preprocess.transforms:
        if type(step).__name__ in ("Resize", "CenterCrop"):
            picture = step(picture)
    return picture


def squares(folder, preprocess, samples):
    """The very pictures that the model sees, as files whose names sort in the order of the samples."""
    folder.mkdir()
    for index, (_, picture, _, _) in enumerate(samples):
        square(Image.open(io.BytesIO(picture)), preprocess).save(folder / f"{index:04}.png")


def pictures(folder, preprocess, samples):
    """Picture files and the bytes that open_clip's transform makes of them."""
    folder.mkdir()
    for seed, (width, height) in enumerate([(96, 96), (301, 200), (97, 640), (1200, 900), (50, 70)]):
        smooth(seed, width, height).save(folder / f"{width}x{height}.png")
    smooth(9, 400, 300).save(folder / "400x300.jpg", quality=92)
    for key, picture, extension, _ in samples:
        (folder / f"{key}.{extension}").write_bytes(picture)
    tensors = {}
    for path in sorted(folder.iterdir()):
        picture = square(Image.open(path), preprocess)
        tensors[path.name] = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    st.save_file(tensors, folder.with_suffix(".safetensors"))


if __name__ == "__main__":
    command, root = sys.argv[1], pathlib.Path(sys.argv[2])
    torch.set_num_threads(2)
    if command == "make":
        make_open_clip(root / "open_clip")
        make_transformers(root / "transformers")
    elif command == "onnx":
        onnx_graphs(root)
    elif command == "benchmark":
        benchmark(root)
    else:
        check(root)
    print("versions: open_clip", open_clip.__version__, "torch", torch.__version__, "transformers", transformers.__version__)
