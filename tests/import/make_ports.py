"""Writes small checkpoints as genforce, mmgeneration and gandissect lay them out, from the documented names and formulas, and
what their networks make of some inputs, in float64. For the tests of `import`; it needs PyTorch and safetensors.

    python make_ports.py OUT
"""
import collections, math, sys
import torch, torch.nn.functional as F
from safetensors.torch import save_file

out = sys.argv[1]
widths, latent = [12, 12, 8], 10
lrelu = lambda x: F.leaky_relu(x, 0.2)
norm = lambda x: x / torch.sqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)
up2 = lambda x: F.interpolate(x, scale_factor=2, mode="nearest")
SQRT2 = math.sqrt(2)

def four(w):
    w = F.pad(w, (1, 1, 1, 1))
    return w[:, :, 1:, 1:] + w[:, :, :-1, 1:] + w[:, :, 1:, :-1] + w[:, :, :-1, :-1]

def draw(gen, *shape, spread=1.0):
    return torch.randn(shape, generator=gen) * spread

def save(name, content, z, images, **more):
    torch.save(content, f"{out}/{name}.pth")
    save_file({"z": z.float(), "images": images.float().contiguous(), **{k: v.float() for k, v in more.items()}}, f"{out}/{name}.safetensors")

# genforce: normalization comes before a layer; the first layer is a full convolution.
def genforce_g(gen, fused):
    w = collections.OrderedDict(lod=torch.tensor(0.25))
    for i, n in enumerate(widths):
        a = latent if i == 0 else widths[i - 1]
        size = 4 if i == 0 else 3
        shape = (a, n, 3, 3) if fused and i else (n, a, size, size)
        w[f"layer{2*i}.weight"], w[f"layer{2*i}.bias"] = draw(gen, *shape), draw(gen, n, spread=0.3)
        w[f"layer{2*i+1}.weight"], w[f"layer{2*i+1}.bias"] = draw(gen, n, n, 3, 3), draw(gen, n, spread=0.3)
        w[f"output{i}.weight"], w[f"output{i}.bias"] = draw(gen, 3, n, 1, 1), draw(gen, 3, spread=0.3)
    return w

def genforce_d(gen):
    w, last = collections.OrderedDict(lod=torch.tensor(0.25)), len(widths) - 1
    def layer(name, n, *shape):
        w[name + ".weight"], w[name + ".bias"] = draw(gen, n, *shape), draw(gen, n, spread=0.3)
    for i in range(last + 1):
        n = widths[last - i]
        layer(f"input{i}", n, 3, 1, 1)
        if i < last:
            layer(f"layer{2*i}", n, n, 3, 3)
            layer(f"layer{2*i+1}", widths[last - i - 1], n, 3, 3)
        else:
            layer(f"layer{2*i}", n, n + 1, 3, 3)
            layer(f"layer{2*i+1}", n, 16 * n)
            layer(f"layer{2*i+2}", 1, n)
    return w

def block(w, x, name, gain=SQRT2, padding=1, up=False, fused=False, prenorm=True):
    weight, bias = w[name + ".weight"].double(), w[name + ".bias"].double()
    if prenorm: x = norm(x)
    fan_in = weight.shape[2] * weight.shape[3] * x.shape[1]
    weight = weight * gain / math.sqrt(fan_in)
    if up and fused: return F.conv_transpose2d(x, four(weight), bias, stride=2, padding=1)
    return F.conv2d(up2(x) if up else x, weight, bias, padding=padding)

def genforce_images(w, z, fused):
    x = norm(z) * math.sqrt(latent)
    x = lrelu(block(w, x[:, :, None, None], "layer0", padding=3))
    x = lrelu(block(w, x, "layer1"))
    images = [block(w, x, "output0", gain=1.0, padding=0)]
    for i in range(1, len(widths)):
        x = lrelu(block(w, x, f"layer{2*i}", up=True, fused=fused))
        x = lrelu(block(w, x, f"layer{2*i+1}"))
        images.append(block(w, x, f"output{i}", gain=1.0, padding=0))
    lod = float(w["lod"])
    return images[-1] * (1 - lod) + up2(images[-2]) * lod

def genforce_scores(w, image):
    lod, last = float(w["lod"]), len(widths) - 1
    layer = lambda x, name, padding=1: lrelu(block(w, x, name, padding=padding, prenorm=False))
    x = layer(image, "input0", 0)
    for i in range(last):
        x = F.avg_pool2d(layer(layer(x, f"layer{2*i}"), f"layer{2*i+1}"), 2)
        if i == 0: x = x * (1 - lod) + layer(F.avg_pool2d(image, 2), "input1", 0) * lod
    y = x.reshape(4, -1, *x.shape[1:])
    y = ((y - y.mean(0)).square().mean(0) + 1e-8).sqrt().mean((1, 2, 3), keepdim=True)
    x = layer(torch.cat([x, y.repeat(4, 1, 4, 4)], 1), f"layer{2*last}").flatten(1)
    dense = lambda x, name, gain: x @ w[name + ".weight"].double().t() * gain / math.sqrt(x.shape[1]) + w[name + ".bias"].double()
    return dense(lrelu(dense(x, f"layer{2*last+1}", SQRT2)), f"layer{2*last+2}", 1.0)

for name, fused in [("genforce", False), ("genforce-fused", True)]:
    gen = torch.Generator().manual_seed(5 + fused)
    z, average = draw(gen, 4, latent).double(), genforce_g(gen, fused)
    images = genforce_images(average, z, fused)
    if fused:  # the averaged generator alone, as on the Hugging Face hub
        save(name, average, z, images)
    else:
        d = genforce_d(gen)
        content = {"generator": genforce_g(gen, fused), "discriminator": d, "generator_smooth": average}
        save(name, content, z, images, scores=genforce_scores(d, images.float().double()))

# mmgeneration: fan-in of the fused layer from its outputs, pixel norm with epsilon beside the root.
mm_norm = lambda x: x / (x.square().mean(dim=1, keepdim=True).sqrt() + 1e-6)

def mmgen_g(gen):
    w, n0 = {}, widths[0]
    w["noise2feat.bias"] = draw(gen, 1, n0, 1, 1, spread=0.3)
    w["noise2feat.linear.weight_orig"] = draw(gen, 16 * n0, latent)
    def conv(name, outputs, *shape):
        w[name + ".conv.bias"], w[name + ".conv.weight_orig"] = draw(gen, outputs, spread=0.3), draw(gen, *shape)
    conv("conv_blocks.0", n0, n0, n0, 3, 3)
    for i in range(1, len(widths)):
        a, b = widths[i - 1], widths[i]
        conv(f"conv_blocks.{2*i-1}", b, a, b, 3, 3)  # transposed
        conv(f"conv_blocks.{2*i}", b, b, b, 3, 3)
    for i, n in enumerate(widths):
        conv(f"torgb_layers.{i}", 3, 3, n, 1, 1)
    return w

def mmgen_images(w, z, weight):
    get = lambda name: (w[name + ".weight_orig"].double() if name + ".weight_orig" in w else w[name].double())
    scaled = lambda v, gain: v * gain * math.sqrt(1 / v[0].numel())
    x = (mm_norm(z) @ scaled(get("noise2feat.linear"), SQRT2 / 4).t()).reshape(-1, widths[0], 4, 4) + get("noise2feat.bias")
    x = mm_norm(lrelu(x))
    conv = lambda x, name, gain, padding: F.conv2d(x, scaled(get(name + ".conv"), gain), get(name + ".conv.bias"), padding=padding)
    x = mm_norm(lrelu(conv(x, "conv_blocks.0", SQRT2, 1)))
    images = [conv(x, "torgb_layers.0", 1.0, 0)]
    for i in range(1, len(widths)):
        up = f"conv_blocks.{2*i-1}.conv"
        x = F.conv_transpose2d(x, four(scaled(get(up), SQRT2)), get(up + ".bias"), stride=2, padding=1)
        x = mm_norm(lrelu(conv(mm_norm(lrelu(x)), f"conv_blocks.{2*i}", SQRT2, 1)))
        images.append(conv(x, f"torgb_layers.{i}", 1.0, 0))
    residual = up2(images[-2])
    return residual + weight * (images[-1] - residual)

gen = torch.Generator().manual_seed(8)
z, average = draw(gen, 4, latent).double(), mmgen_g(gen)
state = collections.OrderedDict({"shown_nkimg": torch.tensor(7.0), "_curr_transition_weight": torch.tensor(0.75),
    "_next_scale_int": torch.tensor(16, dtype=torch.int32), "_curr_scale_int": torch.tensor(16, dtype=torch.int32)})
for prefix, weights in [("generator.", mmgen_g(gen)), ("generator_ema.", average)]:
    state.update({prefix + key: value for key, value in weights.items()})
state["discriminator.decision.linear0.weight_orig"] = draw(gen, 12, 208)
save("mmgen", {"meta": {"iter": 7, "config": "model = dict()"}, "state_dict": state, "optimizer": {"generator": {"state": {}}}}, z,
    mmgen_images(average, z, 0.75))

# gandissect: as genforce, with the last image alone.
gen = torch.Generator().manual_seed(9)
w = collections.OrderedDict()
def layer(name, n, *shape):
    w[name + ".conv.weight"], w[name + ".wscale.b"] = draw(gen, n, *shape), draw(gen, n, spread=0.3)
inputs = latent
for i, n in enumerate(widths):
    layer(f"layer{2*i+1}", n, inputs, 4 if i == 0 else 3, 4 if i == 0 else 3)
    layer(f"layer{2*i+2}", n, n, 3, 3)
    inputs = n
layer("output_16x16", 3, inputs, 1, 1)
z = draw(gen, 4, latent).double()
def conv(x, name, gain, padding):
    weight = w[name + ".conv.weight"].double()
    scale = gain / math.sqrt(x.shape[1]) / weight.shape[2]
    return F.conv2d(norm(x), weight, padding=padding) * scale + w[name + ".wscale.b"].double()[None, :, None, None]
x = lrelu(conv(z[:, :, None, None], "layer1", SQRT2, 3))
x = lrelu(conv(x, "layer2", SQRT2, 1))
for i in range(1, len(widths)):
    weight = w[f"layer{2*i+1}.conv.weight"].double()
    y = F.conv2d(up2(norm(x)), weight, padding=1) * (SQRT2 / 3 / math.sqrt(x.shape[1]))
    x = lrelu(y + w[f"layer{2*i+1}.wscale.b"].double()[None, :, None, None])
    x = lrelu(conv(x, f"layer{2*i+2}", SQRT2, 1))
save("gandissect", w, z, conv(x, "output_16x16", 1.0, 0))
