"""Records what open_clip and transformers make of images before an encoder: open_clip's squares as bytes, and pixels of
transformers' CLIPImageProcessor on Pillow as floats, for the folders in cases.json.

    pip install open_clip_torch transformers safetensors pillow && python make.py [FOLDER]
"""

import json
import pathlib
import sys

import numpy as np
import safetensors.numpy as sn
from open_clip.transform import image_transform
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

HERE = pathlib.Path(__file__).parent
OUT = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
SIZE = 12
# As tests/exchange/preprocessing.rs has them. Widths and heights; an even number is cut away of each, so that transformers,
# which rounds the offset down, and torchvision, which rounds half to even, take the same centre.
IMAGES = [(40, 30), (24, 61), (12, 12), (7, 5), (200, 9)]


def picture(width, height):
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    return Image.fromarray(((x * 37 + y * 91 + c * 53 + x * y * 11) % 256).astype(np.uint8))


squares, numbers = {}, {}
for width, height in IMAGES:
    image = picture(width, height)
    for mode in ["shortest", "longest", "squash"]:
        for interpolation in ["bicubic", "bilinear"]:
            steps = image_transform(
                SIZE, False, mean=(0, 0, 0), std=(1, 1, 1), resize_mode=mode, interpolation=interpolation, fill_color=9
            )
            square = (steps(image) * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
            squares[f"open_clip/{mode}/{interpolation}/{width}x{height}"] = square
    # The Pillow backend of the processor whose torchvision backend is the default.
    for name, settings in json.loads((HERE / "cases.json").read_text()).items():
        processor = CLIPImageProcessorPil(**settings)
        pixels = processor(image, return_tensors="np")["pixel_values"][0].astype(np.float32)
        numbers[f"transformers/{name}/{width}x{height}"] = np.ascontiguousarray(pixels.transpose(1, 2, 0))
sn.save_file(squares, OUT / "expected.safetensors")
sn.save_file(numbers, OUT / "expected.transformers")
