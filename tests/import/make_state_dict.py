"""Writes a dictionary of tensors in both forms of torch.save, for the tests of `import::state_dict`. It needs PyTorch.

    python make_state_dict.py OUT
"""
import sys
import torch

network = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.BatchNorm1d(1))
state = network.state_dict()
for i, tensor in enumerate(state.values()):
    tensor.fill_(i + 1)
torch.save(state, f"{sys.argv[1]}/state-dict.pth")
torch.save(state, f"{sys.argv[1]}/state-dict-legacy.pth", _use_new_zipfile_serialization=False)
