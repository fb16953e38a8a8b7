"""Writes the hostile files of this folder: `images/` (files of images) and `sources/` (containers of them).

    python make.py

Python's standard library is all it needs. The same bytes come out each time. What each file lies about is said where it is
made. `tests/it/hostile.rs` feeds them to `pggan-data`, one line and exit code 2, or a named bad file, being the only answers
that it accepts.
"""
import gzip
import io
import pathlib
import shutil
import struct
import tarfile
import zipfile
import zlib

here = pathlib.Path(__file__).parent


def write(name, data):
    path = here / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


# ------------------------------------------------------------------------------------------------ PNG
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind, data, crc=None):
    crc = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


def png(width=8, height=8, depth=8, colour=2, interlace=0, idat=None, extra=b"", ihdr_crc=None, end=True):
    if idat is None:
        idat = zlib.compress(b"".join(b"\0" + bytes(3 * width) for _ in range(height)))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    return SIGNATURE + chunk(b"IHDR", header, ihdr_crc) + extra + chunk(b"IDAT", idat) + (chunk(b"IEND", b"") if end else b"")


good = png()
write("images/png-empty.png", b"")
write("images/png-is-text.png", b"this is no picture\n")
write("images/png-is-html.png", b"<!DOCTYPE html><html><body>404</body></html>")
write("images/png-signature-only.png", SIGNATURE)
write("images/png-cut-in-header.png", good[:20])
write("images/png-cut-in-pixels.png", good[:45])
write("images/png-header-checksum.png", png(ihdr_crc=0))
write("images/png-no-columns.png", png(width=0, idat=zlib.compress(b"")))
write("images/png-no-rows.png", png(height=0, idat=zlib.compress(b"")))
write("images/png-two-billion-wide.png", png(width=2**31 - 1, height=2**31 - 1, idat=zlib.compress(b"\0")))
write("images/png-four-billion-wide.png", png(width=2**32 - 1, height=1, idat=zlib.compress(b"\0")))
write("images/png-bomb.png", png(width=60000, height=60000, colour=0, idat=zlib.compress(bytes(1 << 20), 9)))
write("images/png-colour-type.png", png(colour=5))
write("images/png-depth.png", png(depth=3))
write("images/png-interlace.png", png(interlace=7))
write("images/png-palette-missing.png", png(colour=3, idat=zlib.compress(b"\0" * 72)))
write("images/png-pixels-not-deflate.png", png(idat=b"not a zlib stream at all"))
write("images/png-pixels-too-few.png", png(width=64, height=64, idat=zlib.compress(bytes(100))))
write("images/png-filter-type.png", png(idat=zlib.compress(b"".join(b"\x09" + bytes(24) for _ in range(8)))))
write("images/png-chunk-too-long.png", SIGNATURE + struct.pack(">I", 2**31 - 1) + b"IHDR" + good[16:])
write("images/png-no-pixels.png", SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)) + chunk(b"IEND", b""))

# ----------------------------------------------------------------------------------------------- JPEG


def segment(marker, data):
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


QUANTISATION = segment(0xDB, b"\0" + bytes([1] * 64))
HUFFMAN = segment(0xC4, b"\0" + bytes([0, 1] + [0] * 14) + b"\0") + segment(0xC4, b"\x10" + bytes([0, 1] + [0] * 14) + b"\0")


def frame(width, height, marker=0xC0, precision=8, components=1):
    parts = b"".join(bytes([i + 1, 0x11, 0]) for i in range(components))
    return segment(marker, struct.pack(">BHHB", precision, height, width, components) + parts)


SCAN = segment(0xDA, b"\x01\x01\x00\x00\x3F\x00")


def jpeg(*segments):
    return b"\xFF\xD8" + b"".join(segments)


write("images/jpeg-start-only.jpg", jpeg())
write("images/jpeg-is-zip.jpg", b"PK\x03\x04" + bytes(100))
write("images/jpeg-no-frame.jpg", jpeg(QUANTISATION, HUFFMAN, SCAN, b"\0\0\xFF\xD9"))
write("images/jpeg-no-columns.jpg", jpeg(QUANTISATION, frame(0, 8), HUFFMAN, SCAN, b"\0\xFF\xD9"))
write("images/jpeg-no-rows.jpg", jpeg(QUANTISATION, frame(8, 0), HUFFMAN, SCAN, b"\0\xFF\xD9"))
write("images/jpeg-four-gigapixels.jpg", jpeg(QUANTISATION, frame(65535, 65535), HUFFMAN, SCAN, b"\0\xFF\xD9"))
write("images/jpeg-no-components.jpg", jpeg(QUANTISATION, frame(8, 8, components=0), HUFFMAN, SCAN, b"\0\xFF\xD9"))
write("images/jpeg-200-components.jpg", jpeg(QUANTISATION, frame(8, 8, components=200), HUFFMAN, SCAN, b"\0\xFF\xD9"))
write("images/jpeg-12-bit.jpg", jpeg(QUANTISATION, frame(8, 8, marker=0xC1, precision=12), HUFFMAN, SCAN, b"\0\xFF\xD9"))
write("images/jpeg-lossless.jpg", jpeg(QUANTISATION, frame(8, 8, marker=0xC3), HUFFMAN, SCAN, b"\0\xFF\xD9"))
write("images/jpeg-cut-in-a-table.jpg", jpeg(QUANTISATION)[:30])
write("images/jpeg-segment-too-long.jpg", jpeg(b"\xFF\xE1\xFF\xFF", b"Exif\0\0"))
write("images/jpeg-table-overfull.jpg", jpeg(QUANTISATION, frame(8, 8), segment(0xC4, b"\0" + bytes([255] * 16) + bytes(200)), SCAN, b"\0"))
write("images/jpeg-cut-in-pixels.jpg", jpeg(QUANTISATION, frame(512, 512), HUFFMAN, SCAN, b"\0\0\0"))

# ------------------------------------------------------------------------------------- GIF, BMP, WebP
write("images/gif-cut.gif", b"GIF89a\x08\0")
write("images/gif-no-frame.gif", b"GIF89a\x08\0\x08\0\0\0\0;")
write("images/gif-four-gigapixels.gif", b"GIF89a\xFF\xFF\xFF\xFF\0\0\0,\0\0\0\0\xFF\xFF\xFF\xFF\0\x08\x01\0\0;")
write("images/gif-code-size.gif", b"GIF89a\x08\0\x08\0\x80\0\0\0\0\0\xFF\xFF\xFF,\0\0\0\0\x08\0\x08\0\0\x63\x02\x4C\x01\0;")


def bmp(width, height, bits=24, compression=0, offset=54, size=40, pixels=b"\0" * 192):
    header = struct.pack("<IiiHHIIiiII", size, width, height, 1, bits, compression, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(pixels), 0, 0, offset) + header + pixels


write("images/bmp-cut.bmp", bmp(8, 8)[:30])
write("images/bmp-cut-in-pixels.bmp", bmp(8, 8)[:100])
write("images/bmp-two-billion.bmp", bmp(2**31 - 1, 2**31 - 1))
write("images/bmp-negative-width.bmp", bmp(-8, 8))
write("images/bmp-least-height.bmp", bmp(8, -(2**31)))
write("images/bmp-bits.bmp", bmp(8, 8, bits=7))
write("images/bmp-compression.bmp", bmp(8, 8, compression=99))
write("images/bmp-header-size.bmp", bmp(8, 8, size=0xFFFFFFF0))


def riff(kind, data, length=None):
    body = b"WEBP" + kind + struct.pack("<I", len(data) if length is None else length) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


write("images/webp-cut.webp", b"RIFF\x20\0\0\0WEBP")
write("images/webp-lossless-noise.webp", riff(b"VP8L", b"\x2F" + bytes(range(64))))
write("images/webp-lossless-no-signature.webp", riff(b"VP8L", bytes(64)))
write("images/webp-lossy-noise.webp", riff(b"VP8 ", b"\x30\x01\x00\x9D\x01\x2A\x08\0\x08\0" + bytes(range(200, 250))))
write("images/webp-canvas-huge.webp", riff(b"VP8X", b"\0\0\0\0" + b"\xFF\xFF\xFF" * 2))
write("images/webp-chunk-too-long.webp", riff(b"VP8L", b"\x2F\x07\xC0\x01\0", length=2**32 - 2))
write("images/is-tiff.png", b"II*\0\x08\0\0\0" + bytes(40))
write("images/is-svg.png", b"<svg xmlns='http://www.w3.org/2000/svg' width='8' height='8'/>")

# ------------------------------------------------------------------------------------------------ zip


def zipped(*files, compression=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in files:
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, compression)
    return stream.getvalue()


write("sources/zip-noise.zip", b"PK\x03\x04" + bytes(60))
write("sources/zip-cut.zip", zipped(("a.png", good), ("b.png", good))[:-30])
write("sources/zip-bomb.zip", zipped(("bomb.png", bytes(32 << 20)), compression=zipfile.ZIP_DEFLATED))
write("sources/zip-traversal.zip", zipped(("../../../up.png", b"no picture"), ("/etc/root.png", b"no picture"), ("C:\\w.png", b"no picture")))
lying = bytearray(zipped(("a.png", good), ("b.png", good)))
at = lying.rfind(b"PK\x01\x02")
lying[at + 20 : at + 28] = struct.pack("<II", 0xFFFFFFF0, 0xFFFFFFF0)
write("sources/zip-sizes.zip", bytes(lying))
lying = bytearray(zipped(("a.png", good), ("b.png", good)))
end = lying.rfind(b"PK\x05\x06")
lying[end + 8 : end + 20] = struct.pack("<HHII", 65000, 65000, 2**31, 2**31)
write("sources/zip-directory.zip", bytes(lying))
write("sources/zip-labels-deep.zip", zipped(("a.png", good), ("b.png", good), ("dataset.json", b'{"labels": ' + b"[" * 5000)))
write("sources/zip-labels-nan.zip", zipped(("a.png", good), ("b.png", good), ("dataset.json", b'{"labels": [["a.png", [NaN]]]}')))
write("sources/zip-labels-huge.zip", zipped(("a.png", good), ("b.png", good), ("dataset.json", b'{"labels": [["a.png", 4294967295], ["b.png", 0]]}')))

# ------------------------------------------------------------------------------------------------ tar


def tarred(*files):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, data, *kind in files:
            info = tarfile.TarInfo(name)
            if kind:
                info.type, info.linkname = kind
                archive.addfile(info)
            else:
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def checked(block):
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    return bytes(block)


two = tarred(("a.png", b"no picture"), ("b.png", b"no picture"))
write("sources/tar-links.tar", tarred(("a.png", b"", tarfile.SYMTYPE, "/etc/passwd"), ("b.png", b"", tarfile.LNKTYPE, "../x.png"), ("c.png", b"", tarfile.CHRTYPE, ""), ("d.png", b"", tarfile.FIFOTYPE, "")))
write("sources/tar-traversal.tar", tarred(("../../../up.png", b"no picture"), ("/etc/root.png", b"no picture")))
write("sources/tar-cut.tar", two[:600])
huge = bytearray(two)
huge[124:136] = b"77777777777\0"
write("sources/tar-size.tar", checked(huge))
negative = bytearray(two)
negative[124:136] = b"\xFF" * 12
write("sources/tar-size-negative.tar", checked(negative))
write("sources/tar-checksum.tar", two[:148] + b"000000\0 " + two[156:])
sparse = bytearray(two)
sparse[156:157] = b"S"
write("sources/tar-sparse.tar", checked(sparse))
write("sources/tar-long-name.tar", tarred(("x" * 100_000 + ".png", b"no picture"), ("b.png", b"no picture")))
write("sources/gzip-bomb.tar.gz", gzip.compress(bytes(32 << 20), 9, mtime=0))
write("sources/gzip-cut.tar.gz", gzip.compress(two, mtime=0)[:40])

# ------------------------------------------------------------------------------------------------ IDX
write("sources/idx-cut", struct.pack(">IIII", 0x803, 2, 4, 4) + bytes(31))
write("sources/idx-huge", struct.pack(">IIII", 0x803, 2**32 - 1, 2**32 - 1, 2**32 - 1))
write("sources/idx-no-pixels", struct.pack(">IIII", 0x803, 5, 0, 0))
write("sources/idx-floats", struct.pack(">IIII", 0xD03, 2, 4, 4) + bytes(128))
write("sources/idx-images-of-none", struct.pack(">IIII", 0x803, 0, 4, 4))
write("sources/idx-few-images-idx3-ubyte", struct.pack(">IIII", 0x803, 2, 4, 4) + bytes(32))
write("sources/idx-few-labels-idx1-ubyte", struct.pack(">II", 0x801, 3) + bytes(3))

# ---------------------------------------------------------------------------------------------- CIFAR
write("sources/cifar-odd.bin", bytes(3000))
write("sources/cifar-class/data_batch_1.bin", bytes(3072))
write("sources/cifar-system.tar", tarred(("data_batch_1", b"cos\nsystem\n(S'echo hacked'\ntR.")))
write("sources/cifar-length.tar", tarred(("data_batch_1", b"\x80\x02}(U\x04dataT\xFF\xFF\xFF\xFF.")))
write("sources/cifar-marks.tar", tarred(("data_batch_1", b"(" * 100_000)))
write("sources/cifar-no-labels.tar", tarred(("data_batch_1", b"\x80\x02}(U\x04dataT\x00\x0C\0\0" + bytes(3072) + b"u.")))

# ------------------------------------------------------------------------------------------ TFRecords
TABLE = []
for n in range(256):
    for _ in range(8):
        n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
    TABLE.append(n)


def masked(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def record(data, length=None, crc=None):
    head = struct.pack("<Q", len(data) if length is None else length)
    return head + masked(head) + data + (masked(data) if crc is None else crc)


def field(number, data):
    assert len(data) < 128
    return bytes([number << 3 | 2, len(data)]) + data


def example(shape, data):
    entry = lambda name, feature: field(1, field(1, name) + field(2, feature))
    return field(1, entry(b"shape", field(3, field(1, shape))) + entry(b"data", field(1, field(1, data))))


four = example(b"\x01\x04\x04", bytes(16))
write("sources/record-length.tfrecords", record(four, length=2**64 - 1))
write("sources/record-length-lies.tfrecords", struct.pack("<Q", 5) + bytes(4) + four)
write("sources/record-cut.tfrecords", record(four)[:-3])
write("sources/record-checksum.tfrecords", record(four, crc=bytes(4)) * 2)
write("sources/record-noise.tfrecords", record(bytes(range(100, 200))) * 2)
write("sources/record-shape.tfrecords", record(example(b"\xFF" * 8 + b"\x7F" + b"\xFF" * 8 + b"\x7F\x01", b"")) * 2)
write("sources/record-shape-two.tfrecords", record(example(b"\x04\x04", bytes(16))) * 2)
write("sources/record-channels.tfrecords", record(example(b"\x07\x02\x02", bytes(28))) * 2)
write("sources/labels-lie/x-r02.tfrecords", record(four) * 2)
header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 9223372036854775807), }\n"
write("sources/labels-lie/x-rxx.labels", b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header)
write("sources/labels-nan/x-r02.tfrecords", record(four) * 2)
header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1), }\n"
write("sources/labels-nan/x-rxx.labels", b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + struct.pack("<ff", 0.5, float("nan")))
write("sources/labels-pickled/x-r02.tfrecords", record(four) * 2)
header = b"{'descr': '|O', 'fortran_order': False, 'shape': (2, 1), }\n"
write("sources/labels-pickled/x-rxx.labels", b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + b"cos\nsystem\n.")

# ----------------------------------------------------------------------------------------------- LMDB


def meta(page_size=4096, root=2, version=1, transaction=1):
    tree = struct.pack("<IHHQQQQQ", page_size, 0, 0, 0, 0, 0, 0, 2**64 - 1) + struct.pack("<IHHQQQQQ", 0, 0, 1, 0, 1, 0, 1, root)
    page = struct.pack("<QHHHH", 0, 0, 8, 0, 0) + struct.pack("<IIQQ", 0xBEEFC0DE, version, 0, 1 << 20) + tree + struct.pack("<QQ", 2, transaction)
    return page.ljust(4096, b"\0")


def page(flags, lower, nodes=b"", pointers=()):
    start = struct.pack("<QHHHH", 2, 0, flags, lower, 4096 - len(nodes)) + struct.pack(f"<{len(pointers)}H", *pointers)
    return start.ljust(4096 - len(nodes), b"\0") + nodes


node = struct.pack("<HHHH", 10, 0, 0, 1) + b"k" + b"no picture"
write("sources/lmdb-page-size/data.mdb", meta(page_size=0) * 2)
write("sources/lmdb-root/data.mdb", meta(root=2**60) * 2)
write("sources/lmdb-version/data.mdb", meta(version=7) * 2)
write("sources/lmdb-circle/data.mdb", meta() * 2 + page(1, 18, struct.pack("<HHHH", 2, 0, 0, 0), [4088]))
write("sources/lmdb-pointer/data.mdb", meta() * 2 + page(2, 18, node, [65535]))
write("sources/lmdb-key/data.mdb", meta() * 2 + page(2, 18, struct.pack("<HHHH", 10, 0, 0, 65535), [4088]))
write("sources/lmdb-value/data.mdb", meta() * 2 + page(2, 18, struct.pack("<HHHH", 65535, 65535, 0, 0), [4088]))
write("sources/lmdb-overflow/data.mdb", meta() * 2 + page(2, 18, struct.pack("<HHHHQ", 10, 0, 1, 0, 2**61), [4080]))
write("sources/lmdb-lower/data.mdb", meta() * 2 + page(2, 3))
# One node, whose key is half of its page, 16,000 times: half a gigabyte of names.
pages = b"".join(meta(page_size=65536).ljust(65536, b"\0") for _ in range(2))
node = struct.pack("<HHHH", 10, 0, 0, 32000) + b"\xFF" * 32000 + b"no picture"
start = struct.pack("<QHHHH", 2, 0, 2, 16 + 2 * 16000, 0) + struct.pack("<H", 65536 - len(node)) * 16000
write("sources/lmdb-overlap/data.mdb", pages + start.ljust(65536 - len(node), b"\0") + node)

# ----------------------------------------------------------------------------------------------- SVHN


def element(kind, data):
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def matrix(name, sizes, data, kind=2, flags=9):
    body = element(6, struct.pack("<II", flags, 0)) + element(5, struct.pack(f"<{len(sizes)}i", *sizes)) + element(1, name) + element(kind, data)
    return element(14, body)


mat = b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\x01IM"
write("sources/mat-cut.mat", mat + matrix(b"X", (32, 32, 3, 2), bytes(6144))[:500])
write("sources/mat-sizes.mat", mat + matrix(b"X", (-1, -1, -1, -1), bytes(64)))
write("sources/mat-doubles.mat", mat + matrix(b"X", (1,), bytes(8), kind=9, flags=6))
write("sources/mat-noise.mat", mat + struct.pack("<II", 15, 50) + bytes(50))
bomb = zlib.compress(matrix(b"X", (32, 32, 3, 8192), bytes(8192 * 3072)), 9)
write("sources/mat-bomb.mat", mat + struct.pack("<II", 15, len(bomb)) + bomb)
write("sources/mat-no-digits.mat", mat + matrix(b"X", (32, 32, 3, 1), bytes(3072)))
bomb = zlib.compress(matrix(b"y", (1, 32 << 20), bytes(32 << 20)), 9)
write("sources/mat-digits.mat", mat + matrix(b"X", (32, 32, 3, 1), bytes(3072)) + struct.pack("<II", 15, len(bomb)) + bomb)

# -------------------------------------------------------------------------------------------- Parquet
I32, I64, BINARY, LIST, STRUCT = 5, 6, 8, 9, 12


def varint(n):
    return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + varint(n >> 7)


def integer(n):
    return varint(n << 1 if n >= 0 else (-n << 1) - 1)


def string(data):
    return varint(len(data)) + data


def several(kind, *items):
    return bytes([len(items) << 4 | kind]) + b"".join(items)


def structure(**fields):
    """Of fields called `_1`, `_2`, …: kind and content of each."""
    out, last = b"", 0
    for name, (kind, content) in fields.items():
        number = int(name[1:])
        out, last = out + bytes([number - last << 4 | kind]) + content, number
    return out + b"\0"


def parquet(pages, rows=2, codec=0, size=1000, children=1, length=None, dictionary=False, **more):
    root = structure(_4=(BINARY, string(b"r")), _5=(I32, integer(children)))
    leaf = structure(_1=(I32, integer(6)), _3=(I32, integer(0)), _4=(BINARY, string(b"image")))
    first = {"_11": (I64, integer(4))} if dictionary else {}
    column = structure(
        _1=(I32, integer(6)), _2=(LIST, several(I32, integer(0))), _3=(LIST, several(BINARY, string(b"image"))), _4=(I32, integer(codec)),
        _5=(I64, integer(rows)), _6=(I64, integer(size)), _7=(I64, integer(len(pages) if length is None else length)), _9=(I64, integer(4)), **first,
    )
    chunk = structure(_2=(I64, integer(4)), _3=(STRUCT, column))
    group = structure(_1=(LIST, several(STRUCT, chunk)), _2=(I64, integer(size)), _3=(I64, integer(rows)))
    footer = structure(
        _1=(I32, integer(2)), _2=(LIST, several(STRUCT, root, leaf)), _3=(I64, integer(rows)), _4=(LIST, several(STRUCT, group)), **more,
    )
    return b"PAR1" + pages + footer + struct.pack("<I", len(footer)) + b"PAR1"


def data_page(data, size=None, packed=None, encoding=0, **more):
    about = structure(_1=(I32, integer(2)), _2=(I32, integer(encoding)), _3=(I32, integer(3)), _4=(I32, integer(3)))
    size, packed = (len(data) if given is None else given for given in (size, packed))
    return structure(_1=(I32, integer(0)), _2=(I32, integer(size)), _3=(I32, integer(packed)), _5=(STRUCT, about), **more) + data


def dictionary_page(data, values):
    about = structure(_1=(I32, integer(values)), _2=(I32, integer(0)))
    return structure(_1=(I32, integer(2)), _2=(I32, integer(len(data))), _3=(I32, integer(len(data))), _7=(STRUCT, about)) + data


plain = b"".join(struct.pack("<I", 10) + b"no picture" for _ in range(2))
write("sources/parquet-noise.parquet", b"PAR1" + bytes(range(100)) + b"PAR1")
write("sources/parquet-footer.parquet", b"PAR1" + struct.pack("<I", 2**32 - 1) + b"PAR1")
write("sources/parquet-branches.parquet", parquet(data_page(plain), children=2**31 - 1))
write("sources/parquet-rows.parquet", parquet(data_page(plain), rows=2**32 - 1, size=2**40))
write("sources/parquet-column.parquet", parquet(data_page(plain, packed=2**31 - 1), length=2**40))
write("sources/parquet-negative.parquet", parquet(data_page(plain), length=-1))
write("sources/parquet-page.parquet", parquet(data_page(varint(2**31 - 1) + plain, size=2**31 - 1), codec=1))
write("sources/parquet-bomb.parquet", parquet(data_page(gzip.compress(bytes(32 << 20), 9, mtime=0), size=32 << 20), codec=2))
write("sources/parquet-dictionary.parquet", parquet(dictionary_page(plain, 2**31 - 1) + data_page(b"\x01\x03\0", encoding=8), dictionary=True))
# Lists of two billion: lists of truth, which takes no room in a structure, and numbers that are not there.
long = lambda kind, content: (LIST, bytes([0xF0 | kind]) + varint(2**31 - 1) + content)
write("sources/parquet-lists.parquet", parquet(data_page(plain), _9=long(LIST, long(1, b"")[1] * 1000)))
write("sources/parquet-header.parquet", parquet(data_page(plain, _9=long(7, b"")), length=40))
write("sources/parquet-lengths.parquet", parquet(data_page(b"\x80\x01\x04\xFF\xFF\xFF\xFF\x07\0", encoding=6)))

shutil.rmtree(here / "__pycache__", ignore_errors=True)
