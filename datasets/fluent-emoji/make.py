#!/usr/bin/env python3
"""Makes images/ and preview.jpg from the npm package that carries Microsoft's Fluent Emoji.

Needs Python 3.10 or newer, and one version of Pillow, since an encoder's bytes differ between versions:

    python3 -m pip install Pillow==13.0.0
    npm pack @lobehub/fluent-emoji-3d@1.1.0
    python3 make.py lobehub-fluent-emoji-3d-1.1.0.tgz

The same package gives the same bytes: afterwards `git status` shows no change. To change the choice, edit chosen.txt
and run it again.
"""

import hashlib
import io
import pathlib
import random
import sys
import tarfile

import PIL
from PIL import Image

HERE = pathlib.Path(__file__).resolve().parent
PACKAGE_SHA256 = "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58"
PILLOW = "13.0.0"
SIZE = 128
# Full chroma resolution: halved, it bleeds where a saturated shape meets the white ground.
JPEG = {"format": "JPEG", "quality": 92, "subsampling": 0, "optimize": True}


def chosen():
    """Yields (name in the package, name here) in the order of chosen.txt."""
    for line in (HERE / "chosen.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            code, name = line.split()
            yield code, name


def on_white(webp):
    """An emoji as the networks see it: opaque, on white, SIZE x SIZE."""
    drawn = Image.open(io.BytesIO(webp)).convert("RGBA")
    ground = Image.new("RGBA", drawn.size, "white")
    ground.alpha_composite(drawn)
    return ground.convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def preview(images, columns=20, rows=8, size=48):
    """A sheet of some of the pictures, drawn without order as training draws them."""
    sheet = Image.new("RGB", (columns * size, rows * size), "white")
    for i, image in enumerate(random.Random(0).sample(images, columns * rows)):
        sheet.paste(image.resize((size, size), Image.Resampling.LANCZOS), (i % columns * size, i // columns * size))
    return sheet


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    if PIL.__version__ != PILLOW:
        sys.exit(f"error: Pillow {PIL.__version__} writes other bytes than Pillow {PILLOW}: pip install Pillow=={PILLOW}")
    package = pathlib.Path(sys.argv[1]).read_bytes()
    if (found := hashlib.sha256(package).hexdigest()) != PACKAGE_SHA256:
        sys.exit(f"error: {sys.argv[1]} has SHA-256 {found}, not {PACKAGE_SHA256}: pack version 1.1.0 again")

    folder = HERE / "images"
    folder.mkdir(exist_ok=True)
    for stale in folder.glob("*.jpg"):
        stale.unlink()
    images = []
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        for code, name in chosen():
            image = on_white(archive.extractfile(f"package/assets/{code}.webp").read())
            image.save(folder / f"{name}.jpg", **JPEG)
            images.append(image)
    preview(images).save(HERE / "preview.jpg", **JPEG)
    print(f"{len(images)} pictures in {folder}")


if __name__ == "__main__":
    main()
