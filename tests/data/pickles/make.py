"""Writes the checkpoints of this folder with PyTorch and open_clip: one small model of random weights in every layout of
torch.save, and a traced one as OpenAI's archives are. The weights are random numbers; they may be used as the rest of the
project.

    pip install torch open_clip_torch safetensors && python make.py
"""

import pathlib

import open_clip
import safetensors.torch as st
import torch

HERE = pathlib.Path(__file__).parent
SMALL = dict(
    embed_dim=8,
    vision_cfg=dict(image_size=16, layers=1, width=16, head_width=8, patch_size=8),
    text_cfg=dict(context_length=8, vocab_size=32, width=16, heads=2, layers=1),
)
# Heads of 64 and MLPs four times as wide, as all of OpenAI's.
OPENAI = dict(
    embed_dim=8,
    quick_gelu=True,
    vision_cfg=dict(image_size=16, layers=1, width=64, patch_size=8),
    text_cfg=dict(context_length=8, vocab_size=32, width=64, heads=1, layers=1),
)


def model(config):
    torch.manual_seed(1)
    made = open_clip.CLIP(**config)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def trained(made):
    """The state of an optimizer after an update, as open_clip saves it."""
    optimizer = torch.optim.AdamW(made.parameters(), lr=0.0)
    images, texts = torch.randn(2, 3, 16, 16), torch.randint(1, 32, (2, 8))
    image, text, scale = made(images, texts)
    (scale * image @ text.T).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


def strided(tensor):
    """The same values as every second element of a transposed storage, behind others."""
    if tensor.dim() < 2:
        return tensor
    wide = torch.zeros(*reversed(tensor.shape), 2)
    wide[..., 1] = tensor.permute(*reversed(range(tensor.dim())))
    return wide[..., 1].permute(*reversed(range(tensor.dim())))


small = model(SMALL)
state = {name: value.detach().contiguous() for name, value in small.state_dict().items()}
st.save_file(state, HERE / "params.safetensors")
torch.save(small.state_dict(), HERE / "state_dict.pt")
epoch = {"epoch": 1, "name": "run", "optimizer": trained(small)}
wrapped = {f"module.{name}": value for name, value in state.items()}
torch.save({**epoch, "state_dict": wrapped}, HERE / "epoch_1.pt")
compiled = {f"_orig_mod.{name}": value for name, value in wrapped.items()}
torch.save({**epoch, "state_dict": compiled}, HERE / "sequence.pt", _use_new_zipfile_serialization=False)
torch.save({name: value.half() for name, value in state.items()}, HERE / "half.pt")
torch.save({name: value.bfloat16() for name, value in state.items()}, HERE / "bfloat16.pt")
torch.save({name: strided(value) for name, value in state.items()}, HERE / "strided.pt")
torch.save({name: value.double() for name, value in state.items()}, HERE / "double.pt")
# Parameters as such, not as tensors of a state_dict.
torch.save(dict(small.named_parameters()), HERE / "parameters.pt", _use_new_zipfile_serialization=False)

openai = model(OPENAI).eval()
for parameter in openai.parameters():
    parameter.data = parameter.data.half().float()
    parameter.requires_grad_(False)
traced = torch.jit.trace(openai, (torch.randn(1, 3, 16, 16), torch.randint(1, 32, (1, 8))), check_trace=False)
for parameter in traced.parameters():
    parameter.data = parameter.data.half()
torch.jit.save(traced, HERE / "openai.pt")
st.save_file(
    {name: value.detach().half().contiguous() for name, value in openai.state_dict().items()},
    HERE / "openai.safetensors",
)
