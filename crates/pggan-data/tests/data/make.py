"""Writes the files of this folder that other programs' libraries write: an LMDB database, MATLAB arrays, Parquet.

    pip install lmdb==3.0.0 scipy numpy pillow pyarrow
    python make.py

`lmdb/data.mdb`: image i has i + 5 pixels a side, red = x, green = y, blue = 40 i; the last is 60x60 noise, so large that
its value is on pages of its own. `svhn.mat` and `svhn-plain.mat` (not compressed): 4 images with
X[y, x, c, n] = y + 2 x + 50 c + 10 n, y = 1, 10, 3, 2.
"""
import io
import json
import pathlib
import shutil

import lmdb
import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.io

here = pathlib.Path(__file__).parent


def png(pixels):
    stream = io.BytesIO()
    PIL.Image.fromarray(pixels.astype(np.uint8)).save(stream, "png", optimize=True)
    return stream.getvalue()


def ramp(i):
    side = i + 5
    y, x = np.mgrid[:side, :side]
    return png(np.stack([x, y, np.full_like(x, 40 * i)], axis=2))


def encoded(i):
    return None if i == 3 else {"bytes": ramp(i), "path": f"{i}.png"}


# As the library `datasets` writes them: image i as above but 3, which is missing, in row groups of two.
notes = {"info": {"features": {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog", "fox"], "_type": "ClassLabel"}}}}
table = pa.table({"label": pa.array([0, 2, -1, 1, 0, None], pa.int64()), "image": pa.array([encoded(i) for i in range(6)])})
table = table.replace_schema_metadata({"huggingface": json.dumps(notes)})
(here / "parquet").mkdir(exist_ok=True)
pq.write_table(table, here / "parquet/train-00000-of-00001.parquet", row_group_size=2)
pq.write_table(table.slice(0, 2), here / "parquet/test-00000-of-00001.parquet")

scratch = here / "scratch"
with lmdb.open(str(scratch), map_size=1 << 24) as env:
    with env.begin(write=True) as write:
        for i in range(6):
            write.put(f"key-{5 - i}".encode(), ramp(5 - i))
        noise = np.random.RandomState(1).randint(0, 256, (60, 60, 3))
        write.put(b"noise", png(noise))
    shutil.rmtree(here / "lmdb", ignore_errors=True)
    (here / "lmdb").mkdir()
    env.copy(str(here / "lmdb"), compact=True)
shutil.rmtree(scratch)

y, x, c, n = np.meshgrid(range(32), range(32), range(3), range(4), indexing="ij")
arrays = {"X": (y + 2 * x + 50 * c + 10 * n).astype(np.uint8), "y": np.array([[1], [10], [3], [2]], dtype=np.uint8)}
scipy.io.savemat(here / "svhn.mat", arrays, do_compression=True)
scipy.io.savemat(here / "svhn-plain.mat", arrays)
