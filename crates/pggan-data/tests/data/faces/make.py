"""Makes what the tests of `src/faces` are compared with: numbers, pictures, JPEGs, and a little CelebA-HQ.

The filter and the transform are Pillow 3.1.1's own C code: its source is fetched from PyPI and compiled, since no
Python of today imports it. The margin is NumPy's and SciPy's. The types of NumPy 1 (a scalar f32 and a
Python number make an f64) are spelt out. JPEGs are decoded by libjpeg 8d, which the package jpeglib has inside; deltas are encrypted
by the package cryptography. `celebahq/` is laid out as CelebA and the paper's deltas are; its pictures are waves.

    pip install numpy scipy pillow jpeglib cryptography
    python make.py          # needs pip and gcc

NumPy 2.4, SciPy 1.17, Pillow 13 and jpeglib 1.0.2 made what is here.
"""

import base64
import bz2
import ctypes
import hashlib
import json
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile

import jpeglib
import numpy as np
import PIL.Image
import scipy.ndimage
from cryptography.fernet import Fernet

HERE = pathlib.Path(__file__).parent
F32, F64 = np.float32, np.float64

SHIM = r"""
#include "Imaging.h"
static Imaging wrap(const unsigned char *in, int w, int h, int c) {
    Imaging im = ImagingNew(c == 1 ? "L" : "RGB", w, h);
    for (int y = 0; y < h; y++) for (int x = 0; x < w; x++) for (int i = 0; i < c; i++)
        ((unsigned char *) im->image[y])[x * im->pixelsize + i] = in[(y * w + x) * c + i];
    return im;
}
static void unwrap(Imaging im, unsigned char *out, int c) {
    for (int y = 0; y < im->ysize; y++) for (int x = 0; x < im->xsize; x++) for (int i = 0; i < c; i++)
        out[(y * im->xsize + x) * c + i] = ((unsigned char *) im->image[y])[x * im->pixelsize + i];
}
void lanczos(const unsigned char *in, int w, int h, int c, unsigned char *out, int W, int H) {
    unwrap(ImagingResample(wrap(in, w, h, c), W, H, IMAGING_TRANSFORM_LANCZOS), out, c);
}
void quad(const unsigned char *in, int w, int h, int c, unsigned char *out, int side, double *a) {
    Imaging to = ImagingNew(c == 1 ? "L" : "RGB", side, side);
    ImagingTransformQuad(to, wrap(in, w, h, c), 0, 0, side, side, a, IMAGING_TRANSFORM_BILINEAR, 1);
    unwrap(to, out, c);
}
Imaging ImagingFill(Imaging im, const void *colour) { return im; }
"""


def pillow_311():
    """The parts of Pillow 3.1.1 that are needed, as a library."""
    dir = pathlib.Path(tempfile.mkdtemp())
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:"]
    subprocess.run([*pip, "--no-build-isolation", "-d", dir, "Pillow==3.1.1"], check=True)
    zipfile.ZipFile(dir / "Pillow-3.1.1.zip").extractall(dir)
    source = dir / "Pillow-3.1.1/libImaging"
    (source / "shim.c").write_text(SHIM)
    files = [f"{name}.c" for name in ["Resample", "Geometry", "Storage", "Copy", "Palette", "Except", "shim"]]
    sizes = ["-DSIZEOF_SHORT=2", "-DSIZEOF_INT=4", "-DSIZEOF_LONG=8", "-DHAVE_PROTOTYPES", "-DSTDC_HEADERS"]
    flags = ["-O2", "-w", "-fcommon", "-shared", "-fPIC", "-include", "stdint.h", *sizes]
    include = sysconfig.get_paths()["include"]
    subprocess.run(["gcc", *flags, f"-I{include}", *files, "-o", dir / "pillow.so"], cwd=source, check=True)
    return ctypes.CDLL(str(dir / "pillow.so"))


PILLOW = pillow_311()


def pointer(array):
    return array.ctypes.data_as(ctypes.c_void_p)


def shape(image):
    return image.shape[1], image.shape[0], 1 if image.ndim == 2 else image.shape[2]


def lanczos(image, width, height):
    image = np.ascontiguousarray(image)
    if (width, height) == shape(image)[:2]:
        return image
    out = np.zeros((height, width, *image.shape[2:]), np.uint8)
    PILLOW.lanczos(pointer(image), *shape(image), pointer(out), width, height)
    return out


def through_quad(image, corners, side):
    """`corners`: f32, nw, sw, se, ne."""
    image = np.ascontiguousarray(image)
    coefficients = []
    for i in range(2):
        nw, sw, se, ne = corners[:, i]
        step = 1.0 / side
        coefficients += [F64(nw), F64(ne - nw) * step, F64(sw - nw) * step, F64(se - sw - ne + nw) * step * step]
    out = np.zeros((side, side, *image.shape[2:]), np.uint8)
    PILLOW.quad(pointer(image), *shape(image), pointer(out), side, (ctypes.c_double * 8)(*coefficients))
    return out


def left(v):
    return np.array([-v[1], v[0]], F32)


def length(v):
    return F64(np.hypot(v[0], v[1]))


def half_up(v):
    return int(np.round(F64(v)))


def plan(points, width, height, resolution):
    """The numbers of Appendix C."""
    p = np.array(points, F32)
    eyes, mouth = (p[0] + p[1]) * F32(0.5) + F32(0.5), (p[3] + p[4]) * F32(0.5) + F32(0.5)
    across, down = p[1] - p[0], mouth - eyes
    x = across - left(down)
    x = x / F32(length(x)) * F32(max(length(across) * 2.0, length(down) * 1.8))
    y = left(x)
    c = eyes + down * F32(0.1)
    quad = np.stack([c - x - y, c - x + y, c + x + y, c + x - y])
    zoom = resolution / (length(x) * 2)
    out = {"points": points, "size": [width, height], "resolution": resolution, "reduced": None, "margin": None}

    shrink = int(np.floor(0.5 / zoom))
    if shrink > 1:
        width, height = half_up(width / shrink), half_up(height / shrink)
        out["reduced"] = [width, height]
        quad, zoom = quad / F32(shrink), zoom * shrink

    def bounds():
        low, high = np.floor(quad.min(0)).astype(int), np.ceil(quad.max(0)).astype(int)
        return [int(v) for v in [*low, *high]]

    border = max(half_up(resolution * 0.1 / zoom), 3)
    b = bounds()
    crop = [max(b[0] - border, 0), max(b[1] - border, 0), min(b[2] + border, width), min(b[3] + border, height)]
    quad = quad - np.array(crop[:2], F32)
    width, height = crop[2] - crop[0], crop[3] - crop[1]
    out["crop"] = crop

    superres = max(int(np.exp2(np.ceil(np.log2(zoom)))), 1)
    if superres > 1:
        quad, zoom = quad * F32(superres), zoom / superres
        width, height = width * superres, height * superres
    out["superres"] = superres

    b = bounds()
    over = [border - b[0], border - b[1], b[2] - width + border, b[3] - height + border]
    if max(0, *over) > border - 4:
        pad = [max(v, half_up(resolution * 0.3 / zoom)) for v in over]
        out["margin"] = {"pad": pad, "sigma": float(resolution * 0.02 / zoom)}
        quad = quad + np.array(pad[:2], F32)
    out["quad"] = [[float(v) for v in corner] for corner in quad]
    return out


def margin(image, pad, sigma):
    """The mirrored, blurred and faded border, by NumPy and SciPy."""
    l, t, r, b = pad
    image = np.pad(image.astype(F32), ((t, b), (l, r), (0, 0)), "reflect")
    height, width, _ = image.shape
    y, x = [grid.astype(F32)[:, :, None] for grid in np.mgrid[:height, :width]]
    nearest = np.minimum(np.minimum(x / F32(l), y / F32(t)), np.minimum((width - 1 - x) / F32(r), (height - 1 - y) / F32(b)))
    mask = F32(1) - nearest
    blurred = scipy.ndimage.gaussian_filter(image, [sigma, sigma, 0])
    image = image + (blurred - image) * np.clip(mask * F32(3) + F32(1), 0, 1)
    image = image + (np.median(image, axis=(0, 1)) - image) * np.clip(mask, 0, 1)
    assert image.dtype == F32
    return np.clip(np.round(image), 0, 255).astype(np.uint8)


def aligned(image, points, resolution):
    p = plan(points, image.shape[1], image.shape[0], resolution)
    if p["reduced"]:
        image = lanczos(image, *p["reduced"])
    l, t, r, b = p["crop"]
    image = image[t:b, l:r]
    image = lanczos(image, image.shape[1] * p["superres"], image.shape[0] * p["superres"])
    if p["margin"]:
        image = margin(image, **p["margin"])
    wide = through_quad(image, np.array(p["quad"], F32) + F32(0.5), 4 * resolution)
    return lanczos(wide, resolution, resolution)


def face(size, middle, eyes, angle):
    """Points of an upright face with that distance of the eyes, turned by an angle in degrees."""
    turn = np.exp(1j * np.radians(angle))
    offsets = [-0.5, 0.5, 0.6j, -0.4 + 1.1j, 0.42 + 1.12j]
    return [[round(float(v), 3) for v in (p.real, p.imag)] for p in (complex(*middle) + eyes * turn * o for o in offsets)]


def scene(width, height, seed):
    """Waves and noise: every frequency, no real picture."""
    rng = np.random.RandomState(seed)
    y, x = np.mgrid[:height, :width]
    waves = [127 + 120 * np.sin((x * (i + 1) + y * (3 - i)) / (7.0 + 5 * i + seed)) for i in range(3)]
    return np.clip(np.stack(waves, 2) + rng.randint(-40, 40, (height, width, 3)), 0, 255).astype(np.uint8)


def save(name, image):
    PIL.Image.fromarray(image).save(HERE / name, optimize=True)


def md5(array):
    return hashlib.md5(np.ascontiguousarray(array).tobytes()).hexdigest()


def decoded(path):
    """By libjpeg 8d."""
    jpeglib.version.set("8d")
    return jpeglib.read_spatial(str(path)).spatial


def jpegs():
    """Every way to sample, baseline and progressive, with the MD5 of what libjpeg 8d makes of it."""
    dir = HERE / "jpeg"
    shutil.rmtree(dir, ignore_errors=True)
    dir.mkdir()
    picture = scene(53, 37, 4) // 2 + 60
    image = PIL.Image.fromarray(picture)
    for name, options in {
        "444": {"subsampling": 0}, "422": {"subsampling": 1}, "420": {"subsampling": 2, "quality": 95},
        "420-progressive": {"subsampling": 2, "progressive": True}, "rgb": {"keep_rgb": True},
        "444-progressive": {"subsampling": 0, "progressive": True, "quality": 97},
        "420-restart": {"subsampling": 2, "restart_marker_blocks": 2},
        "422-progressive-restart": {"subsampling": 1, "progressive": True, "restart_marker_rows": 1},
        "noise-quality-5": {"subsampling": 2, "quality": 5},
    }.items():
        image.save(dir / f"{name}.jpg", **options)
    image.convert("L").save(dir / "grey.jpg")
    jpeglib.version.set("8d")
    for name, factors in {"440": [[2, 1], [1, 1], [1, 1]], "411": [[1, 4], [1, 1], [1, 1]], "odd": [[2, 2], [1, 2], [2, 1]]}.items():
        jpeg = jpeglib.from_spatial(picture)
        jpeg.samp_factor = np.array(factors)
        jpeg.write_spatial(str(dir / f"{name}.jpg"), qt=85)
    sums = {path.name: md5(decoded(path)) for path in sorted(dir.glob("*.jpg"))}
    (dir / "md5.json").write_text(json.dumps(sums, indent=1) + "\n")


def celebahq():
    """Two images with deltas, a third that is not in the list."""
    root = HERE / "celebahq"
    shutil.rmtree(root, ignore_errors=True)
    images, deltas = root / "CelebA/img_celeba", root / "deltas"
    for dir in [images, root / "CelebA/Anno", deltas]:
        dir.mkdir(parents=True)
    faces = [((70, 60), 20, 10, {"subsampling": 2}), ((60, 70), 24, 0, {}), ((25, 100), 25, -30, {"subsampling": 1, "progressive": True})]
    points = []
    for number, (middle, eyes, angle, options) in enumerate(faces):
        points.append(face((150, 130), middle, eyes, angle))
        smooth = scene(150, 130, 10 + number) // 4 + scipy.ndimage.gaussian_filter(scene(150, 130, 20 + number), [4, 4, 0]) // 2
        PIL.Image.fromarray(smooth).save(images / f"{number + 1:06}.jpg", **options)
    names = [f"{number + 1:06}.jpg" for number in range(3)]
    rows = [" ".join([name, *(str(v) for point in p for v in point)]) for name, p in zip(names, points)]
    (root / "CelebA/Anno/list_landmarks_celeba.txt").write_text("\n".join(["3", "lefteye_x lefteye_y ...", *rows]) + "\n")

    lines = ["idx orig_idx orig_file proc_md5 final_md5"]
    with zipfile.ZipFile(deltas / "deltas00000.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for index, original in enumerate([2, 0]):
            name = names[original]
            image = aligned(decoded(images / name), points[original], 1024).transpose(2, 0, 1)
            delta = np.resize(np.arange(1, 252 + index, dtype=np.uint8), image.shape)
            final = image + delta
            key = hashlib.pbkdf2_hmac("sha256", (images / name).read_bytes(), name.encode(), 100000)
            token = Fernet(base64.urlsafe_b64encode(key)).encrypt(bz2.compress(delta.tobytes()))
            archive.writestr(f"delta{index:05}.dat", token)
            lines.append(f"{index} {original} {name} {md5(image)} {md5(final)}")
    (deltas / "image_list.txt").write_text("\n".join(lines) + "\n")


def main():
    # Distance of the eyes from much too small to much too large; faces that turn, lean out, and stand on their heads.
    faces = [
        (178, 218, (89, 110), 40, 0), (178, 218, (89, 110), 40, 17), (300, 200, (20, 30), 60, -35),
        (90, 120, (45, 70), 30, 180), (2000, 3000, (900, 1200), 700, 5), (3000, 2000, (1600, 900), 180, -90),
        (500, 500, (250, 240), 128, 0), (640, 480, (300, 200), 33.3, 3.25), (64, 64, (32, 30), 4.5, 44),
        (1024, 768, (1000, 740), 150, 60), (4000, 4000, (2000, 2000), 1100, 30), (409, 687, (180.5, 260.25), 91.7, -8),
    ]
    plans = [
        plan(face((w, h), middle, eyes, angle), w, h, resolution)
        for resolution in [1024, 64]
        for w, h, middle, eyes, angle in faces
    ]
    assert {p["reduced"] is None for p in plans} == {p["margin"] is None for p in plans} == {True, False}
    (HERE / "plans.json").write_text("[\n" + ",\n".join(map(json.dumps, plans)) + "\n]\n")

    small = scene(41, 29, 1)
    save("source.png", small)
    for name, width, height in [("up", 164, 116), ("down", 13, 11), ("mixed", 50, 7)]:
        save(f"lanczos-{name}.png", lanczos(small, width, height))
    corners = np.array([[-3.2, 5.5], [4.1, 30.3], [38.7, 24.4], [33.3, -4.6]], F32)
    save("quad.png", through_quad(small, corners, 72))
    save("margin.png", margin(small, [12, 9, 15, 20], 1.7))

    picture = scene(150, 130, 2)
    save("picture.png", picture)
    # Within it, beyond its corner, much larger than asked for, turned and enlarged.
    cases = [((75, 60), 20, 10), ((15, 110), 25, -30), ((80, 50), 62, 3), ((70, 66), 6, 100)]
    for number, (middle, eyes, angle) in enumerate(cases):
        points = face((150, 130), middle, eyes, angle)
        save(f"aligned-{number}.png", aligned(picture, points, 32))
    cases = [face((150, 130), middle, eyes, angle) for middle, eyes, angle in cases]
    (HERE / "aligned.json").write_text(json.dumps(cases) + "\n")
    jpegs()
    celebahq()


if __name__ == "__main__":
    main()
