"""open_clip's model configurations, and small models of them with random weights.

    pip install open_clip_torch timm safetensors
    python make.py configurations            # writes configurations.json: all of open_clip's, one a line
    python make.py towers                    # writes towers.json: timm's towers of them, as timm makes them
    python make.py weights OUT NAME [NAME]   # OUT/NAME: a folder of open_clip and the embeddings that open_clip gives

The small models have the widths, heads and options of their configuration, two blocks, four patches a side and a thousand
tokens. A line of what could not be made goes to standard output, with the reason.
"""

import copy
import json
import pathlib
import sys

import open_clip
import safetensors.torch as st
import timm
import torch

HERE = pathlib.Path(__file__).parent
DEPTH, GRID, VOCABULARY = 2, 4, 1000


def configurations():
    with open(HERE / "configurations.json", "w") as out:
        lines = [f"{json.dumps(name)}: {json.dumps(open_clip.get_model_config(name))}" for name in open_clip.list_models()]
        out.write("{\n" + ",\n".join(lines) + "\n}\n")


def towers():
    names = {open_clip.get_model_config(name)["vision_cfg"].get("timm_model_name") for name in open_clip.list_models()}
    lines = []
    for name in sorted(name for name in names if name and (name.startswith("vit_") or name.startswith("eva_giant"))):
        with torch.device("meta"):
            tower = timm.create_model(name, num_classes=0)
        if not hasattr(tower, "blocks") or hasattr(tower, "rope") and tower.rope is not None:
            continue
        block = tower.blocks[0]
        state = tower.state_dict()
        if not hasattr(block, "attn") or "patch_embed.proj.weight" not in state or not hasattr(block.attn, "num_heads"):
            continue
        lines.append(json.dumps(name) + ": " + json.dumps(dict(
            patch=tower.patch_embed.patch_size[0],
            width=tower.embed_dim,
            depth=len(tower.blocks),
            heads=block.attn.num_heads,
            hidden=block.mlp.fc1.out_features,
            curve=str(block.mlp.act),
            eps=block.norm1.eps,
            class_token="cls_token" in state,
            pre_norm="norm_pre.weight" in state,
            qkv_bias="blocks.0.attn.qkv.bias" in state,
            query_bias="blocks.0.attn.q_bias" in state,
            layer_scale="blocks.0.ls1.gamma" in state,
            patch_bias="patch_embed.proj.bias" in state,
            relative=any("rel_pos" in key for key in state),
        )))
    (HERE / "towers.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def small(config, folder):
    """The configuration in small; of a tower of timm with a folder that says so."""
    config = copy.deepcopy(config)
    vision, text = config["vision_cfg"], config["text_cfg"]
    name = vision.get("timm_model_name")
    if name:
        patch = int(name.split("patch")[1].split("_")[0]) if "patch" in name else 16
    else:
        patch = vision.get("patch_size", 16) or 32
    ragged = vision["image_size"] % patch
    vision["image_size"] = GRID * patch + ragged
    if name:
        beside = folder / "timm"
        beside.mkdir(parents=True, exist_ok=True)
        arguments = dict(depth=DEPTH, img_size=vision["image_size"])
        about = dict(architecture=name, num_classes=0, model_args=arguments, pretrained_cfg=dict(num_classes=0))
        (beside / "config.json").write_text(json.dumps(about))
        vision["timm_model_name"] = f"local-dir:{beside}"
    elif not isinstance(vision["layers"], list):
        vision["layers"] = DEPTH
    if "hf_model_name" not in text:
        text["layers"] = DEPTH
        text["vocab_size"] = VOCABULARY
    return config


def weights(out, names):
    for name in names:
        folder = out / name
        folder.mkdir(parents=True)
        try:
            make(name, folder)
        except Exception as error:
            print(f"{name}\t{type(error).__name__}: {' '.join(str(error).split())[:200]}")


def make(name, folder):
    config = small(open_clip.get_model_config(name), folder)
    (folder / "open_clip_config.json").write_text(json.dumps(dict(model_cfg=config)))
    arguments = copy.deepcopy(config)
    kind = open_clip.CustomTextCLIP if arguments.pop("custom_text", False) else open_clip.CLIP
    if "multimodal_cfg" in arguments:
        arguments.pop("multimodal_cfg")
        return
    if "hf_model_name" in arguments["text_cfg"]:
        return
    torch.manual_seed(1)
    model = kind(**arguments).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # Nothing stays zero or one: what is forgotten must show.
            parameter.add_(0.02 * torch.randn_like(parameter))
        side = config["vision_cfg"]["image_size"]
        image = torch.randn(2, 3, side, side)
        text = torch.randint(3, VOCABULARY - 1, (2, config["text_cfg"].get("context_length", 77)))
        text[:, 5] = config["text_cfg"].get("eos_id", VOCABULARY - 1)
        expected = dict(
            image=image,
            text=text.float(),
            images=model.encode_image(image, normalize=True),
            texts=model.encode_text(text, normalize=True),
        )
    state = {key: value.contiguous().clone() for key, value in model.state_dict().items()}
    st.save_file(state, folder / "open_clip_model.safetensors")
    st.save_file({key: value.contiguous() for key, value in expected.items()}, folder / "expected")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["configurations"]:
            configurations()
        case ["towers"]:
            towers()
        case ["weights", out, *names]:
            weights(pathlib.Path(out), names)
        case _:
            sys.exit(__doc__)
