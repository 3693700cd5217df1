"""Changes of kernels: worked into a network they add what was learned; files are whole or refused."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from facestyle.errors import CheckpointError
from facestyle.models.checkpoints import read_metadata, read_tensors
from facestyle.models.kernel_change import KernelChange


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(6, 8, 3), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return self.last(self.first(x))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network().requires_grad_(False)


def some_change():
    rng = torch.Generator().manual_seed(3)
    shapes = {"first.weight": (8, 6, 3, 3), "last.weight": (4, 8, 1, 1)}
    return KernelChange(
        {name: 0.1 * torch.randn(shape, generator=rng) for name, shape in shapes.items()}
    )


def state(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_worked_in_it_is_added(network, share):
    before, change = state(network), some_change()
    change.work_into(network, share)
    for name, tensor in network.state_dict().items():
        wanted = before[name]
        if name in change.parts:
            wanted = wanted + share * change.parts[name]
        assert torch.allclose(tensor, wanted, atol=1e-6), name


@pytest.mark.parametrize("wrong", ["third.weight", "first.weight"])
def test_what_does_not_fit_is_refused_before_anything_changes(network, wrong):
    before, parts = state(network), dict(some_change().parts)
    parts[wrong] = parts["last.weight"]
    with pytest.raises(CheckpointError, match=wrong):
        KernelChange(parts).work_into(network)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_saved_it_is_the_same_change(network, tmp_path):
    path, change = tmp_path / "hair.safetensors", some_change()
    change.parts["last.weight"].zero_()
    change.save(path)
    again = KernelChange.from_file(path)
    assert again.parts.keys() == change.parts.keys()
    assert not again.parts["last.weight"].any()
    part, wanted = (one.parts["first.weight"] for one in (again, change))
    assert part.dtype == torch.float32 and part.shape == wanted.shape
    assert (part - wanted).norm() < 0.1 * wanted.norm()
    assert (part - wanted).abs().max() < 0.15 * wanted.square().mean().sqrt()
    again.save(path)  # what it holds it holds
    assert torch.allclose(KernelChange.from_file(path).parts["first.weight"], part, atol=0.02)


@pytest.mark.parametrize("fault", ["format", "half", "nan", "name", "long", "wide"])
def test_a_damaged_file_is_refused_by_name(tmp_path, fault):
    path = tmp_path / "hair.safetensors"
    some_change().save(path)
    tensors, metadata = read_tensors(path), read_metadata(path)
    if fault == "format":
        metadata["format"] = "something"
    elif fault == "half":
        del tensors["last.weight.unit"]
    elif fault == "nan":
        tensors["first.weight.unit"][0] = torch.nan
    elif fault == "long":
        tensors["first.weight.unit"] = torch.ones(7)
    elif fault == "wide":  # of 40 kB, gigabytes
        tensors["first.weight"] = torch.ones(20_000, 1, dtype=torch.int8)
        tensors["first.weight.unit"] = torch.ones(1, 20_000, dtype=torch.int8)
    else:
        tensors["middle.weight.unit"] = tensors["first.weight.unit"].clone()
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(CheckpointError, match=r"hair\.safetensors"):
        KernelChange.from_file(path)
    with pytest.raises(CheckpointError):
        KernelChange.from_file(tmp_path / "absent.safetensors")
