"""Reads multi-resolution TFRecords with TensorFlow's own reader and compares them with a store, pixel for pixel.

    pip install tensorflow-cpu safetensors
    python read_tfrecords.py STORE TFRECORD_FOLDER

STORE is a prepared data set, TFRECORD_FOLDER what `pggan-data export STORE --format tfrecord` made of it. Checked:
every record of every level has the store's pixels and shape, and the labels are the store's rows. Prints the size
of each file. Written with tensorflow-cpu 2.21.0 and safetensors 0.8.
"""
import json
import pathlib
import sys

import numpy as np
import tensorflow as tf
from safetensors import safe_open

store, folder = map(pathlib.Path, sys.argv[1:])
manifest = json.loads((store / "manifest.json").read_text())
features = {"shape": tf.io.FixedLenFeature([3], tf.int64), "data": tf.io.FixedLenFeature([], tf.string)}

for level in manifest["levels"]:
    (path,) = folder.glob(f"*-r{level['level']:02}.tfrecords")
    records = iter(tf.data.TFRecordDataset(str(path), buffer_size=1 << 24).batch(256))
    done, ahead = 0, np.zeros((0,))
    for shard in level["shards"]:
        with safe_open(store / shard["file"], "numpy") as tensors:
            images = tensors.get_slice("images")
            for first in range(0, shard["count"], 256):
                expected = images[first : min(first + 256, shard["count"])]
                while len(ahead) < len(expected):
                    batch = tf.io.parse_example(next(records), features)
                    assert (batch["shape"].numpy() == expected.shape[1:]).all()
                    pixels = tf.io.decode_raw(batch["data"], tf.uint8).numpy().reshape(-1, *expected.shape[1:])
                    ahead = np.concatenate([ahead, pixels]) if len(ahead) else pixels
                assert (ahead[: len(expected)] == expected).all(), f"level {level['level']}"
                done, ahead = done + len(expected), ahead[len(expected) :]
    assert done == manifest["images"] and len(ahead) == 0 and next(records, None) is None
    print(f"{path.name}: {path.stat().st_size} bytes, {done} records as in the store")

if manifest["labels"]:
    (path,) = folder.glob("*-rxx.labels")
    rows = np.load(path)
    with safe_open(store / "labels.safetensors", "numpy") as tensors:
        labels = tensors.get_tensor("labels")
    expected = np.eye(manifest["labels"], dtype=np.float32)[labels] if labels.ndim == 1 else labels
    assert rows.dtype == np.float32 and (rows == expected).all()
    print(f"{path.name}: {path.stat().st_size} bytes, {rows.shape} as in the store")
