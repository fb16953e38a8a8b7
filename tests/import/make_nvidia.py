"""Writes small pickles as NVIDIA's code saves its networks, from the documented names and formulas, and what those networks
make of some inputs, in float64. For the tests of `import`; it needs PyTorch, numpy and safetensors.

    python make_nvidia.py OUT

nvidia-fused.pkl    TensorFlow's variables, fused scaling, labels; protocol 5
nvidia-unfused.pkl  TensorFlow's variables, unfused, in a fade; protocol 2, as Python 3 writes bytes there
nvidia-theano.pkl   Theano's list of parameters, with scales and turned kernels; as Python 2 writes it
"""
import pickle, struct, sys, types
import numpy as np, torch, torch.nn.functional as F
from safetensors.torch import save_file

out = sys.argv[1]
SQRT2 = np.sqrt(2.0)

# The classes that the real projects pickle their networks as.
def stub(module):
    sys.modules[module] = types.ModuleType(module)
    class Network:
        def __init__(self, state): self.state = state
        def __getstate__(self): return self.state
    Network.__module__, Network.__qualname__ = module, "Network"
    sys.modules[module].Network = Network
    return Network
TfNetwork, TheanoNetwork = stub("tfutil"), stub("network")

class Python2Pickler(pickle._Pickler):
    """Strings and bytes are one type there."""
    dispatch = dict(pickle._Pickler.dispatch)
    def save_string(self, obj):
        data = obj.encode() if isinstance(obj, str) else obj
        self.write(b"U" + bytes([len(data)]) + data if len(data) < 256 else b"T" + struct.pack("<i", len(data)) + data)
        self.memoize(obj)
    dispatch[str] = dispatch[bytes] = save_string

def write(name, networks, protocol):
    import io
    file = io.BytesIO()
    kind = Python2Pickler if protocol == "python2" else pickle._Pickler
    kind(file, 2 if protocol == "python2" else protocol).dump(networks)
    data = file.getvalue()
    if protocol in (2, "python2"):
        data = data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")  # where it was then
    open(f"{out}/{name}.pkl", "wb").write(data)

nf = lambda k, stage: min(int(k["fmap_base"] / 2.0 ** (stage * k["fmap_decay"])), k["fmap_max"])
lrelu = lambda x: torch.maximum(0.2 * x, x)
norm = lambda x: x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)
up2 = lambda x: x.repeat_interleave(2, 2).repeat_interleave(2, 3)
down2 = lambda x: F.avg_pool2d(x, 2)
bias = lambda x, b: x + (b[None, :, None, None] if x.ndim == 4 else b)

def stddev(x, group):
    g = min(group, x.shape[0])
    y = x.reshape(g, -1, *x.shape[1:])
    y = ((y - y.mean(0, keepdim=True)).square().mean(0) + 1e-8).sqrt().mean((1, 2, 3), keepdim=True)
    return torch.cat([x, y.repeat(g, 1, x.shape[2], x.shape[3])], 1)

def grow(lod, max_level, image_at):
    """The image at the resolution at work; what fades in is blended with what was there."""
    level = max_level - int(np.floor(lod))
    new, frac = image_at(level), lod - np.floor(lod)
    return new if frac == 0 else new + (up2(image_at(level - 1)) - new) * frac

class Tf:
    """The official networks on TensorFlow's variables: HWIO kernels, run-time scale, fused layers as they are defined."""
    def __init__(self, k, seed):
        self.k, self.max = k, int(np.log2(k["resolution"]))
        self.gen = np.random.RandomState(seed)

    def layer(self, v, name, shape):
        v[name + "/weight"] = self.gen.randn(*shape).astype(np.float32)
        outputs = shape[-2] if name.endswith("Conv0_up") else shape[-1] // (16 if name == "4x4/Dense" else 1)
        v[name + "/bias"] = (0.3 * self.gen.randn(outputs)).astype(np.float32)

    def make(self, kind, lod):
        k, v = self.k, {"lod": np.float32(lod)}
        latent, labels, colours = k["latent_size"], k["label_size"], k["num_channels"]
        if kind == "G":
            self.layer(v, "4x4/Dense", (latent + labels, 16 * nf(k, 1)))
            self.layer(v, "4x4/Conv", (3, 3, nf(k, 1), nf(k, 1)))
            for l in range(3, self.max + 1):
                r, a, b = f"{2**l}x{2**l}/", nf(k, l - 2), nf(k, l - 1)
                self.layer(v, r + ("Conv0_up" if k["fused_scale"] else "Conv0"), (3, 3, b, a) if k["fused_scale"] else (3, 3, a, b))
                self.layer(v, r + "Conv1", (3, 3, b, b))
            for l in range(2, self.max + 1):
                self.layer(v, f"ToRGB_lod{self.max - l}", (1, 1, nf(k, l - 1), colours))
        else:
            for l in range(2, self.max + 1):
                self.layer(v, f"FromRGB_lod{self.max - l}", (1, 1, colours, nf(k, l - 1)))
            for l in range(3, self.max + 1):
                r = f"{2**l}x{2**l}/"
                self.layer(v, r + "Conv0", (3, 3, nf(k, l - 1), nf(k, l - 1)))
                self.layer(v, r + ("Conv1_down" if k["fused_scale"] else "Conv1"), (3, 3, nf(k, l - 1), nf(k, l - 2)))
            self.layer(v, "4x4/Conv", (3, 3, nf(k, 1) + 1, nf(k, 1)))
            self.layer(v, "4x4/Dense0", (16 * nf(k, 1), nf(k, 0)))
            self.layer(v, "4x4/Dense1", (nf(k, 0), 1 + labels))
        return v

    def get(self, v, name, gain, fan_in=None):
        w = torch.tensor(v[name + "/weight"]).double()
        fan_in = fan_in or int(np.prod(w.shape[:-1]))
        return w * gain / np.sqrt(fan_in), torch.tensor(v[name + "/bias"]).double()

    def conv(self, v, x, name, gain=SQRT2):
        w, b = self.get(v, name, gain)
        return bias(F.conv2d(x, w.permute(3, 2, 0, 1), padding=w.shape[0] // 2), b)

    def four(self, w):
        w = F.pad(w, (1, 1, 1, 1))
        return w[:, :, 1:, 1:] + w[:, :, :-1, 1:] + w[:, :, 1:, :-1] + w[:, :, :-1, :-1]

    def up(self, v, x, r):
        if not self.k["fused_scale"]:
            return self.conv(v, up2(x), r + "Conv0")
        w, b = self.get(v, r + "Conv0_up", SQRT2, 9 * x.shape[1])
        return bias(F.conv_transpose2d(x, self.four(w.permute(3, 2, 0, 1)), stride=2, padding=1), b)

    def down(self, v, x, r):
        if not self.k["fused_scale"]:
            return down2(lrelu(self.conv(v, x, r + "Conv1")))
        w, b = self.get(v, r + "Conv1_down", SQRT2)
        return lrelu(bias(F.conv2d(x, self.four(w.permute(3, 2, 0, 1)) * 0.25, stride=2, padding=1), b))

    def g(self, v, z, labels):
        w, b = self.get(v, "4x4/Dense", SQRT2 / 4)
        z = norm(torch.cat([z, labels], 1))
        x = norm(lrelu(bias((z @ w).reshape(z.shape[0], -1, 4, 4), b)))
        x = norm(lrelu(self.conv(v, x, "4x4/Conv")))
        at = {2: x}
        for l in range(3, self.max + 1):
            r = f"{2**l}x{2**l}/"
            x = norm(lrelu(self.up(v, x, r)))
            at[l] = x = norm(lrelu(self.conv(v, x, r + "Conv1")))
        return grow(float(v["lod"]), self.max, lambda l: self.conv(v, at[l], f"ToRGB_lod{self.max - l}", 1.0))

    def d(self, v, image):
        lod = float(v["lod"])
        level, frac = self.max - int(np.floor(lod)), lod - np.floor(lod)
        rgb = lambda x, l: lrelu(self.conv(v, x, f"FromRGB_lod{self.max - l}"))
        x = rgb(image, level)
        for l in range(level, 2, -1):
            r = f"{2**l}x{2**l}/"
            x = self.down(v, lrelu(self.conv(v, x, r + "Conv0")), r)
            if l == level and frac:
                x = x + (rgb(down2(image), l - 1) - x) * frac
        x = lrelu(self.conv(v, stddev(x, self.k["mbstd_group_size"]), "4x4/Conv"))
        w, b = self.get(v, "4x4/Dense0", SQRT2)
        x = lrelu(x.flatten(1) @ w + b)
        w, b = self.get(v, "4x4/Dense1", 1.0)
        return x @ w + b

class Theano:
    """The paper's networks on Theano's parameters: convolutions that turn their kernels, weights of unit variance and a scale."""
    def __init__(self, k, seed):
        self.k, self.max = k, int(np.log2(k["resolution"]))
        self.gen = np.random.RandomState(seed)

    def layer(self, values, shape, outputs):
        w = self.gen.randn(*shape) * np.sqrt(2.0 / (np.prod(shape) / outputs))
        scale = np.sqrt(np.mean(w ** 2))
        values += [(w / scale).astype(np.float32), np.float32(scale), (0.3 * self.gen.randn(outputs)).astype(np.float32)]

    def make(self, kind):
        k, v = self.k, []
        if kind == "G":
            self.layer(v, (nf(k, 1), k["latent_size"], 4, 4), nf(k, 1))
            self.layer(v, (nf(k, 1), nf(k, 1), 3, 3), nf(k, 1))
            for l in range(3, self.max + 1):
                self.layer(v, (nf(k, l - 1), nf(k, l - 2), 3, 3), nf(k, l - 1))
                self.layer(v, (nf(k, l - 1), nf(k, l - 1), 3, 3), nf(k, l - 1))
            for l in range(self.max, 1, -1):
                self.layer(v, (nf(k, l - 1), 3), 3)
        else:
            self.layer(v, (3, nf(k, self.max - 1)), nf(k, self.max - 1))
            for l in range(self.max, 2, -1):
                self.layer(v, (nf(k, l - 1), nf(k, l - 1), 3, 3), nf(k, l - 1))
                self.layer(v, (nf(k, l - 2), nf(k, l - 1), 3, 3), nf(k, l - 2))
                self.layer(v, (3, nf(k, l - 2)), nf(k, l - 2))
            self.layer(v, (nf(k, 1), nf(k, 1) + 1, 3, 3), nf(k, 1))
            self.layer(v, (nf(k, 0), nf(k, 1), 4, 4), nf(k, 0))
            self.layer(v, (nf(k, 0), 1), 1)
        return v

    def run(self, v, steps):
        """Takes three parameters for each step: how to apply the weight, then scale and bias."""
        tensors = iter([torch.tensor(x).double() for x in v])
        results = []
        for step in steps:
            w, s, b = next(tensors), next(tensors), next(tensors)
            results.append(lambda x, step=step, w=w, s=s, b=b: bias(step(x, w) * s, b))
        return iter(results)

    # A true convolution turns its kernel.
    same = staticmethod(lambda x, w: F.conv2d(x, w.flip(2, 3), padding=1))
    full = staticmethod(lambda x, w: F.conv2d(x, w.flip(2, 3), padding=3))
    valid = staticmethod(lambda x, w: F.conv2d(x, w.flip(2, 3)))
    nin = staticmethod(lambda x, w: torch.einsum("nchw,co->nohw", x, w))
    dense = staticmethod(lambda x, w: x.flatten(1) @ w)

    def g(self, v, z):
        n = self.max - 1
        layer = self.run(v, [self.full, self.same] + [self.same] * (2 * n - 2) + [self.nin] * n)
        x = norm(lrelu(next(layer)(norm(z)[:, :, None, None])))
        at = {2: norm(lrelu(next(layer)(x)))}
        for l in range(3, self.max + 1):
            x = norm(lrelu(next(layer)(up2(at[l - 1]))))
            at[l] = norm(lrelu(next(layer)(x)))
        rgb = {l: next(layer) for l in range(self.max, 1, -1)}
        return rgb[self.max](at[self.max])

    def d(self, v, image):
        n = self.max - 2
        layer = self.run(v, [self.nin] + [self.same, self.same, self.nin] * n + [self.same, self.valid, self.dense])
        x = lrelu(next(layer)(image))
        for _ in range(n):
            x = lrelu(next(layer)(x))
            x = down2(lrelu(next(layer)(x)))
            next(layer)
        x = lrelu(next(layer)(stddev(x, 16)))
        x = lrelu(next(layer)(x))
        return next(layer)(x)

def kwargs(**over):
    return {**dict(num_channels=3, resolution=16, label_size=0, fmap_base=64, fmap_decay=1.0, fmap_max=12, latent_size=10,
        normalize_latents=True, use_wscale=True, use_pixelnorm=True, pixelnorm_epsilon=1e-8, use_leakyrelu=True,
        dtype="float32", fused_scale=True, mbstd_group_size=4, structure=None, is_template_graph=False), **over}

def expected(name, z, labels, images, scores):
    tensors = {"z": z, "images": images, "scores": scores}
    if labels.shape[1]: tensors["labels"] = labels
    save_file({k: t.float().contiguous() for k, t in tensors.items()}, f"{out}/{name}.safetensors")

torch.manual_seed(3)
for name, k, lod, protocol in [
    ("nvidia-fused", kwargs(label_size=3), 0.0, 5),
    ("nvidia-unfused", kwargs(fused_scale=False), 0.375, 2),
]:
    net = Tf(k, 7)
    g, d, average = net.make("G", lod), net.make("D", lod), net.make("G", lod)
    state = lambda kind, v: TfNetwork({"version": 2, "name": kind, "static_kwargs": k, "build_func_name": kind + "_paper",
        "build_module_src": "raise SystemExit('this must never run')", "variables": list(v.items())})
    write(name, (state("G", g), state("D", d), state("G", average)), protocol)
    z = torch.randn(4, k["latent_size"]).double()
    labels = torch.eye(4)[:, :k["label_size"]].double()
    images = net.g(average, z, labels)
    expected(name, z, labels, images, net.d(d, images.float().double()))

k = kwargs(resolution=16)
net = Theano(k, 11)
g, d, average = net.make("G"), net.make("D"), net.make("G")
spec = lambda kind: {"func": kind + "_paper", **{key: k[key] for key in ("num_channels", "resolution", "label_size", "fmap_base",
    "fmap_decay", "fmap_max", "latent_size", "normalize_latents", "use_wscale", "use_pixelnorm", "use_leakyrelu")}, "tanh_at_end": None}
state = lambda kind, v: TheanoNetwork({"build_func_spec": spec(kind), "param_values": v, "toplevel_params": {"cur_lod": np.float32(0)}})
write("nvidia-theano", (state("G", g), state("D", d), state("G", average)), "python2")
z = torch.randn(4, k["latent_size"]).double()
images = net.g(average, z)
expected("nvidia-theano", z, torch.zeros(4, 0), images, net.d(d, images.float().double()))
