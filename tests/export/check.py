"""Compares exported networks with the images that they made here: an ONNX model in onnxruntime, or a file of
pytorch_GAN_zoo's names by its formulas in PyTorch. Needs numpy, safetensors, and onnxruntime or PyTorch.

    cargo xtask generate --network X --latents latents.safetensors --dest images.safetensors
    cargo xtask export --network X --format onnx --dest g.onnx
    python check.py g.onnx latents.safetensors images.safetensors
"""
import json, math, sys
import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file

model, latents, images = sys.argv[1:]
inputs, expected = load_file(latents), load_file(images)["images"]

def of_onnx():
    import onnxruntime
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(["images"], {i.name: inputs[i.name].astype(np.float32) for i in session.get_inputs()})[0]

def of_zoo():
    import torch, torch.nn.functional as F
    with safe_open(model, "pt") as f:
        w = {name[len("avgG."):]: f.get_tensor(name).double() for name in f.keys() if name.startswith("avgG.")}
        config = json.loads(f.metadata()["config"])
    def layer(x, name, dense=False):
        weight, bias = w[name + ".module.weight"], w[name + ".module.bias"]
        y = F.linear(x, weight, bias) if dense else F.conv2d(x, weight, bias, padding=weight.shape[2] // 2)
        return y * math.sqrt(2.0 / weight[0].numel())
    lrelu = lambda x: F.leaky_relu(x, 0.2)
    norm = lambda x: x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
    up2 = lambda x: F.interpolate(x, scale_factor=2)
    x = lrelu(layer(norm(torch.tensor(inputs["z"]).double()), "formatLayer", True)).view(-1, config["depthScale0"], 4, 4)
    x, n, older = norm(lrelu(layer(norm(x), "groupScale0.0"))), len(config["depthOtherScales"]), None
    for i in range(n):
        if i == n - 1 and config["alpha"] > 0: older = up2(layer(x, f"toRGBLayers.{i}"))
        x = norm(lrelu(layer(up2(x), f"scaleLayers.{i}.0")))
        x = norm(lrelu(layer(x, f"scaleLayers.{i}.1")))
    y = layer(x, f"toRGBLayers.{n}")
    return (y if older is None else config["alpha"] * older + (1 - config["alpha"]) * y).numpy()

theirs = of_onnx() if model.endswith(".onnx") else of_zoo()
assert theirs.shape == expected.shape, (theirs.shape, expected.shape)
error = np.abs(theirs - expected).max() / np.abs(expected).max()
print(f"{model}: images {expected.shape}, largest relative error {error:.1e}")
sys.exit(error > 1e-5)
