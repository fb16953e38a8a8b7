"""Writes small checkpoints as pytorch_GAN_zoo lays them out, from the documented names and formulas, and what its generator
makes of some latent vectors. For the tests of `import`; it needs PyTorch and safetensors.

    python make_zoo.py OUT
"""
import math, pickle, struct, sys, types
import torch, torch.nn.functional as F
from safetensors.torch import save_file

out = sys.argv[1]
# The class that the real project pickles its settings with.
for name in ("models", "models.utils", "models.utils.config"):
    sys.modules[name] = types.ModuleType(name)
class BaseConfig:
    pass
BaseConfig.__module__ = "models.utils.config"
sys.modules["models.utils.config"].BaseConfig = BaseConfig

def scaled(x, layer, w, dense=False):
    weight, bias = w[layer + ".module.weight"], w[layer + ".module.bias"]
    c = math.sqrt(2.0 / weight[0].numel())
    y = F.linear(x, weight, bias) if dense else F.conv2d(x, weight, bias, padding=weight.shape[2] // 2)
    return y * c

lrelu = lambda x: F.leaky_relu(x, 0.2)
norm = lambda x: x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
up2 = lambda x: F.interpolate(x, scale_factor=2, mode="nearest")

def generator(w, z, dims, alpha):
    x = lrelu(scaled(norm(z), "formatLayer", w, dense=True)).view(-1, dims[0], 4, 4)
    x = norm(lrelu(scaled(norm(x), "groupScale0.0", w)))
    older = None
    for i in range(len(dims) - 1):
        if alpha > 0 and i == len(dims) - 2:
            older = up2(scaled(x, "toRGBLayers.%d" % i, w))
        x = up2(x)
        x = norm(lrelu(scaled(x, "scaleLayers.%d.0" % i, w)))
        x = norm(lrelu(scaled(x, "scaleLayers.%d.1" % i, w)))
    y = scaled(x, "toRGBLayers.%d" % (len(dims) - 1), w)
    return y if older is None else alpha * older + (1 - alpha) * y

def state(spec, gen):
    d = {}
    for layer, shape in spec:
        d[layer + ".module.weight"] = torch.randn(shape, generator=gen)
        d[layer + ".module.bias"] = torch.randn(shape[0], generator=gen) * 0.3
    return d

def specs(dims, latent, channels):
    g = [("formatLayer", (16 * dims[0], latent)), ("groupScale0.0", (dims[0], dims[0], 3, 3))]
    d = [("decisionLayer", (1, dims[0])), ("groupScaleZero.0", (dims[0], dims[0] + 1, 3, 3)), ("groupScaleZero.1", (dims[0], 16 * dims[0]))]
    for i in range(len(dims) - 1):
        a, b = dims[i], dims[i + 1]
        g += [("scaleLayers.%d.0" % i, (b, a, 3, 3)), ("scaleLayers.%d.1" % i, (b, b, 3, 3))]
        d += [("scaleLayers.%d.0" % i, (b, b, 3, 3)), ("scaleLayers.%d.1" % i, (a, b, 3, 3))]
    for i, n in enumerate(dims):
        g += [("toRGBLayers.%d" % i, (channels, n, 1, 1))]
        d += [("fromRGBLayers.%d" % i, (n, channels, 1, 1))]
    return g, d

def checkpoint(dims, latent, alpha, seed):
    gen = torch.Generator().manual_seed(seed)
    g, d = specs(dims, latent, 3)
    config = BaseConfig()
    config.__dict__.update(alpha=alpha, depthScale0=dims[0], depthOtherScales=dims[1:], miniBatchStdDev=True,
        perChannelNormalization=True, equalizedlR=True, latentVectorDim=latent, categoryVectorDim=0, dimOutput=3, depth=3)
    z = torch.randn(4, latent, generator=gen)
    ckpt = {"config": config, "netG": state(g, gen), "netD": state(d, gen), "avgG": state(g, gen)}
    return ckpt, z, generator(ckpt["avgG"], z, dims, alpha)

for name, args, legacy in [("stable", ([12, 10, 7], 9, 0.0, 1), False), ("fading", ([12, 10, 7], 9, 0.3, 2), True)]:
    ckpt, z, images = checkpoint(*args)
    torch.save(ckpt, f"{out}/zoo-{name}.pth", _use_new_zipfile_serialization=not legacy)
    save_file({"z": z, "images": images}, f"{out}/zoo-{name}.safetensors")
