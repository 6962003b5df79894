"""Makes the pictures of this folder and expected.tsv: which of their damaged copies Pillow loads.

    python make.py        # with Pillow and numpy

A damaged copy is a picture in which the bytes [at, at + removed) are replaced by others. Pillow is asked as it is by
default, LOAD_TRUNCATED_IMAGES off. The last column is what flip does. It differs from Pillow where libjpeg fills up
with gray what the data does not reach: that is half a picture, and is skipped. The few other differences are in OURS.

The pictures are computed here; they may be used as the rest of the project.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
WIDTH, HEIGHT = 61, 45
EOI = b"\xff\xd9"


def without(*counts):
    return {f"its last {missing} bytes missing" for missing in counts}


# What flip does where Pillow does otherwise.
OURS = {
    # Every pixel is there.
    "plain.gif": (without(3), "load"),
    "lossy.webp": (without(1, 2, 3), "load"),
    "lossless.webp": (without(1), "load"),
    "alpha.webp": (without(1, 2, 3), "load"),
    # What is missing only fills up the last row.
    "plain.bmp": (without(1, 2, 3), "skip"),
    # Its scans go on behind the picture.
    "gray_progressive.jpg": ({"fewer rows in its header"}, "skip"),
}


def pixels():
    rng = np.random.default_rng(1)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    wave = [(np.sin(x / 9 + k) + np.cos(y / 13)) * 60 for k in range(4)]
    edge = ((x // 13 + y // 11) % 2) * 40 + 70
    return (np.stack(wave, -1) + edge[..., None] + rng.integers(0, 9, (HEIGHT, WIDTH, 1))).clip(0, 255).astype(np.uint8)


def encoded(mode, kind, **options):
    planes = pixels()
    shown = {"RGB": planes[..., :3], "L": planes[..., 0], "RGBA": planes, "CMYK": planes, "P": planes[..., :3]}[mode]
    picture = Image.fromarray(np.ascontiguousarray(shown))
    if mode == "CMYK":
        picture = Image.frombytes("CMYK", (WIDTH, HEIGHT), planes.tobytes())
    if mode == "P":
        picture = picture.convert("P", palette=Image.Palette.ADAPTIVE)
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def segments(jpeg):
    """(marker, begin, end) of the segments up to the first scan's data."""
    at, found = 2, []
    while True:
        end = at + 2 + int.from_bytes(jpeg[at + 2:at + 4], "big")
        found.append((jpeg[at + 1], at, end))
        if jpeg[at + 1] == 0xDA:
            return found
        at = end


def scan_after_scan():
    """A baseline file whose three planes come one after the other."""
    gray = encoded("L", "JPEG", quality=80)
    parts = segments(gray)
    data = gray[parts[-1][2]:-2]
    tables = b"".join(gray[begin:end] for marker, begin, end in parts if marker in (0xDB, 0xC4))
    size = HEIGHT.to_bytes(2, "big") + WIDTH.to_bytes(2, "big")
    frame = b"\xff\xc0\x00\x11\x08" + size + b"\x03" + b"".join(bytes([i, 0x11, 0]) for i in (1, 2, 3))
    scans = b"".join(b"\xff\xda\x00\x08\x01" + bytes([i, 0, 0, 63, 0]) + data for i in (1, 2, 3))
    return b"\xff\xd8" + tables + frame + scans + EOI


PICTURES = {
    "baseline.jpg": encoded("RGB", "JPEG", quality=80),
    "full_colour.jpg": encoded("RGB", "JPEG", quality=80, subsampling=0),
    "progressive.jpg": encoded("RGB", "JPEG", quality=80, progressive=True),
    "restarts.jpg": encoded("RGB", "JPEG", quality=80, restart_marker_blocks=3),
    "progressive_restarts.jpg": encoded("RGB", "JPEG", quality=80, progressive=True, restart_marker_blocks=3),
    "gray.jpg": encoded("L", "JPEG", quality=80),
    "gray_progressive.jpg": encoded("L", "JPEG", quality=80, progressive=True),
    "cmyk.jpg": encoded("CMYK", "JPEG", quality=80),
    "scan_after_scan.jpg": scan_after_scan(),
    "plain.png": encoded("P", "PNG"),
    "alpha.png": encoded("RGBA", "PNG"),
    "plain.gif": encoded("P", "GIF"),
    "plain.bmp": encoded("P", "BMP"),
    "lossy.webp": encoded("RGB", "WEBP", quality=60),
    "lossless.webp": encoded("P", "WEBP", lossless=True),
    "alpha.webp": encoded("RGBA", "WEBP", quality=60),
}


def pillow(picture):
    try:
        image = Image.open(io.BytesIO(picture))
        image.load()
        image.convert("RGB")
        return "load"
    except Exception:
        return "skip"


def damages(name, picture):
    """(what, at, removed, inserted, whether libjpeg makes up gray)"""
    length = len(picture)
    yield "as it is", 0, 0, b"", False
    for percent in [*range(5, 100, 5), 99]:
        yield f"{percent} % of it", length * percent // 100, length, b"", False
    for missing in range(1, 33):
        yield f"its last {missing} bytes missing", length - missing, missing, b"", False
    yield "bytes behind it", length, 0, b"behind it \xff\xd8\0" * 9, False
    if not name.endswith(".jpg"):
        return
    found = segments(picture)
    scan = found[-1][2]
    size = next(begin for marker, begin, _ in found if marker in (0xC0, 0xC2)) + 5
    for height in (HEIGHT + 20, 2 * HEIGHT, 10 * HEIGHT):
        yield f"{height} rows in its header", size, 2, height.to_bytes(2, "big"), True
    yield "fewer rows in its header", size, 2, (HEIGHT - 10).to_bytes(2, "big"), False
    yield "bytes between two segments", found[-1][1], 0, b"abc", False
    yield "fill bytes before a marker", found[-1][1], 0, b"\xff\xff\xff", False
    yield "bytes before the end marker", length - 2, 0, b"\0abc" * 5, False
    yield "two end markers", length, 0, EOI, False
    if "progressive" not in name:
        for percent in (1, 25, 50, 75, 95):
            yield f"an end marker at {percent} % of the scan", scan + (length - scan) * percent // 100, 0, EOI, True
    if name == "scan_after_scan.jpg":
        yield "an end marker before the last plane", picture.rfind(b"\xff\xda"), 0, EOI, True
    if name == "cmyk.jpg":
        adobe = next(begin for marker, begin, _ in found if marker == 0xEE)
        yield "colours told to be YCCK", adobe + 15, 1, b"\2", False


def main():
    lines = ["picture\twhat\tat\tremoved\tinserted\tpillow\tflip"]
    for name, picture in PICTURES.items():
        (HERE / name).write_bytes(picture)
        for what, at, removed, inserted, gray in damages(name, picture):
            removed = min(removed, len(picture) - at)
            outcome = pillow(picture[:at] + inserted + picture[at + removed:])
            here, ours = OURS.get(name, ((), None))
            flip = "skip" if gray else ours if what in here else outcome
            lines.append(f"{name}\t{what}\t{at}\t{removed}\t{inserted.hex()}\t{outcome}\t{flip}")
    (HERE / "expected.tsv").write_text("\n".join(lines) + "\n")


main()
