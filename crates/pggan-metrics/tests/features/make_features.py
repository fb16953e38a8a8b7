"""What PyTorch makes of feature networks with made-up weights: numbers for `tests/it/networks.rs`.

    python make_features.py     # needs torch, torchvision, pillow, numpy, scipy, safetensors

Weights are a formula of a tensor's name and an index, in integers until the last step, so that both languages draw the
same ones and only outputs are stored: `outputs.safetensors`, and `tensors.json` with every name and shape.
"""
import json

import numpy as np
import PIL.Image
import scipy.linalg
import torch
import torch.nn.functional as F
import torchvision
from safetensors.numpy import save_file
from torchvision.models import inception as tv_inception

U64 = np.uint64


def splitmix(v):
    with np.errstate(over="ignore"):
        v = v + U64(0x9E3779B97F4A7C15)
        v = (v ^ (v >> U64(30))) * U64(0xBF58476D1CE4E5B9)
        v = (v ^ (v >> U64(27))) * U64(0x94D049BB133111EB)
        return v ^ (v >> U64(31))


def uniform(name, count):
    """`count` numbers in [-1, 1) that depend on the name alone."""
    key = U64(0)
    for byte in name.encode():
        key = splitmix(np.array(key ^ U64(byte)))
    with np.errstate(over="ignore"):
        bits = splitmix(key + np.arange(count, dtype=U64)) >> U64(40)
    return bits.astype(np.float64) / 2**23 - 1


def made_up(name, shape):
    values = uniform(name, int(np.prod(shape, dtype=np.int64)))
    if name.endswith("running_var"):
        values = 1 + 0.2 * values
    elif len(shape) > 1:  # a kernel: keeps the scale of what goes through
        values = values * np.sqrt(6 / np.prod(shape[1:]))
    elif name.endswith("weight"):
        values = 1 + 0.1 * values
    else:
        values = 0.1 * values
    return values.reshape(shape).astype(np.float32)


def fill(network):
    state = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    network.load_state_dict({k: torch.from_numpy(made_up(k, tuple(v.shape))) for k, v in state.items()}, strict=False)
    return network.eval(), {k: list(v.shape) for k, v in state.items()}


def images(seed, n, size, noise):
    """The formula of the golden images, see `tests/it/golden.rs`."""
    out = np.zeros((n, 3, size, size), np.uint8)
    y, x = np.mgrid[0:size, 0:size].astype(np.int64)
    triangle = lambda t: np.minimum(np.abs(t % 512 - 256), 255)
    for i in range(n):
        for c in range(3):
            h = int(splitmix(np.array(seed * 1000003 + i * 31 + c, dtype=U64)))
            fx, fy, ph = 1 + (h & 7), 1 + (h >> 3 & 7), h >> 6 & 511
            fx2, fy2, ph2 = 4 + (h >> 16 & 31), 4 + (h >> 21 & 31), h >> 26 & 511
            a = triangle((x * fx + y * fy) * (128 // size) + ph)
            b = triangle(x * fx2 + 65536 + ph2 - y * fy2)
            with np.errstate(over="ignore"):
                e = splitmix(U64(h) + (y * size + x).astype(U64)) >> U64(56)
            out[i, c] = ((8 - noise) * ((5 * a + 3 * b) // 8) + noise * e.astype(np.int64)) // 8
    return out


def resize_tf(x, side):
    """Bilinear without half-pixel centres, as TensorFlow 1 resized."""
    def axis(size):
        at = np.arange(side, dtype=np.float32) * np.float32(size / side)
        low = at.astype(np.int64)
        return low, np.minimum(low + 1, size - 1), at - low
    x = x.astype(np.float32)
    low, high, t = axis(x.shape[3])
    x = x[..., low] + (x[..., high] - x[..., low]) * t
    low, high, t = axis(x.shape[2])
    return x[:, :, low] + (x[:, :, high] - x[:, :, low]) * t[:, None]


def resize_clean(x, side):
    one = lambda plane: np.asarray(PIL.Image.fromarray(plane.astype(np.float32)).resize((side, side), PIL.Image.BICUBIC))
    return np.stack([np.stack([one(plane) for plane in image]) for image in x]).clip(0, 255)


class Pooling2015:
    """Pooling branches as the graph of 2015 has them: means of the pixels that are there, a maximum in the last block."""

    def __init__(self, network):
        self.in_last = False
        network.Mixed_7c.register_forward_pre_hook(lambda *_: setattr(self, "in_last", True))
        network.Mixed_7c.register_forward_hook(lambda *_: setattr(self, "in_last", False))

    def avg_pool2d(self, x, kernel_size, stride, padding):
        if self.in_last:
            return torch.max_pool2d(x, kernel_size, stride, padding)
        return torch._C._nn.avg_pool2d(x, kernel_size, stride, padding, count_include_pad=False)


class Functions:
    def __init__(self, pooling):
        self.avg_pool2d = pooling.avg_pool2d

    def __getattr__(self, name):
        return getattr(F, name)


def run(network, x, last):
    """Pooled features and what the last layer makes of them without its bias."""
    kept = {}
    last.register_forward_pre_hook(lambda _, args: kept.update(features=args[0]))
    with torch.no_grad():
        network(torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)))
    features = kept["features"]
    return features.numpy(), (features @ last.weight.T).detach().numpy()


def main():
    torch.manual_seed(0)
    out, names = {}, {}
    x = images(11, 2, 64, 1)

    network = tv_inception.Inception3(num_classes=1008, aux_logits=False, init_weights=False)
    network, names["inception-2015-12-05"] = fill(network)
    tv_inception.F = Functions(Pooling2015(network))
    found = run(network, (resize_tf(x, 299) - 128) / 128, network.fc)
    out["inception-2015-12-05/features"], out["inception-2015-12-05/logits"] = found
    tv_inception.F = F

    network = tv_inception.Inception3(num_classes=1000, aux_logits=True, init_weights=False)
    network, names["inceptionv3"] = fill(network)
    found = run(network, resize_clean(x, 299) / 127.5 - 1, network.fc)
    out["inceptionv3/features"], out["inceptionv3/logits"] = found

    network, names["mobilenetv2"] = fill(torchvision.models.mobilenet_v2())
    mean, std = (np.array(v).reshape(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    found = run(network, (resize_clean(x, 224) / 255 - mean) / std, network.classifier[1])
    out["mobilenetv2/features"], out["mobilenetv2/logits"] = found

    for side in (24, 150):
        out[f"resize/tf/{side}"] = resize_tf(x[:1, :1], side)[0, 0]
        out[f"resize/clean/{side}"] = resize_clean(x[:1, :1], side)[0, 0]

    # A Fréchet distance by scipy's square root, of features whose covariance is far from a multiple of 1.
    draw = lambda name, n, d: uniform(name, n * d).reshape(n, d)
    mix = draw("mixture", 48, 48)
    a, b = (draw("a", 300, 48) @ mix).astype(np.float32), (draw("b", 300, 48) @ mix * 1.1 + 0.2).astype(np.float32)
    sa, sb = (np.cov(v.astype(np.float64), rowvar=False) for v in (a, b))
    means = a.astype(np.float64).mean(0) - b.astype(np.float64).mean(0)
    root = scipy.linalg.sqrtm(sa @ sb).real
    out["frechet/a"], out["frechet/b"] = a, b
    out["frechet/distance"] = np.array([means @ means + np.trace(sa + sb - 2 * root)])

    save_file({k: np.ascontiguousarray(v) for k, v in out.items()}, "outputs.safetensors")
    with open("tensors.json", "w") as file:
        json.dump(names, file, separators=(",", ":"))


if __name__ == "__main__":
    main()
