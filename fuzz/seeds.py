"""Fills `corpus/` with what the targets begin with: files of the tests, hostile ones among them, and small sound ones.

    python fuzz/seeds.py

The sound ones are made by `pggan-data` itself; those of formats that it only reads are written here.
"""
import pathlib
import pickle
import struct
import subprocess
import tempfile

root = pathlib.Path(__file__).resolve().parent.parent
BAD, DATA = "tests/bad/sources", "crates/pggan-data/tests/data"
FILES = {
    "import": ["tests/import/*.pkl", "tests/import/*.pth", "tests/import/*.safetensors"],
    "decode": ["tests/bad/images/*", f"{DATA}/faces/jpeg/*.jpg", f"{DATA}/faces/*.png"],
    "zip": [f"{BAD}/zip-*"],
    "tar": [f"{BAD}/*.tar"],
    "cifar": [f"{BAD}/*.bin", f"{BAD}/cifar-class/*"],
    "tfrecords": [f"{BAD}/record-*", f"{BAD}/labels-*/*", f"{DATA}/tfrecord/*.tfrecords", f"{DATA}/tfrecord/*.labels"],
    "idx": [f"{BAD}/idx-*"],
    "lmdb": [f"{BAD}/lmdb-*/*", f"{DATA}/lmdb/*"],
    "mat": [f"{BAD}/mat-*", f"{DATA}/*.mat"],
    "parquet": [f"{BAD}/parquet-*", f"{DATA}/parquet/*"],
    "manifest": [f"{DATA}/version-1/manifest.json"],
    "shard": [],
}


def put(target, name, data):
    folder = root / "fuzz/corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


for target, patterns in FILES.items():
    for path in (path for pattern in patterns for path in root.glob(pattern)):
        put(target, f"{path.parent.name}-{path.name}", path.read_bytes())

with tempfile.TemporaryDirectory() as scratch:

    def run(*arguments):
        subprocess.run(["cargo", "run", "-q", "-p", "pggan-data", "--", *arguments], cwd=root, check=True)

    store, made = f"{scratch}/store", pathlib.Path(scratch)
    run("prepare", "--source", "synthetic:3x8", "--dest", store, "--codec", "png", "--codec-above", "4")
    for path in (made / "store").iterdir():
        put("manifest" if path.suffix == ".json" else "shard", path.name, path.read_bytes())
    for kind, target in [("zip", "zip"), ("tfrecord", "tfrecords"), ("webdataset", "tar")]:
        run("export", store, "--format", kind, "--dest", f"{scratch}/{kind}")
        for path in [made / kind] if target == "zip" else (made / kind).iterdir():
            put(target, path.name, path.read_bytes())

put("idx", "images", struct.pack(">IIII", 0x803, 2, 4, 4) + bytes(32))
put("idx", "labels", struct.pack(">II", 0x801, 2) + bytes(2))
put("cifar", "record-10", bytes(3073))
put("cifar", "record-100", bytes(3074))
for labels in ["labels", "fine_labels"]:
    # What Python 2 wrote as strings are bytes now.
    batch = {labels.encode(): [6], b"data": bytes(3072), b"filenames": [b"a.png"]}
    put("cifar", f"pickle-{labels}", pickle.dumps(batch, protocol=3))

for folder in sorted((root / "fuzz/corpus").iterdir()):
    print(f"{folder.name}: {len(list(folder.iterdir()))} files")
