"""Maps of codes: worked into a network they do what they do to its codes; files are whole or refused."""

import pytest
import torch
from safetensors.torch import save_file

from facestyle.errors import CheckpointError, ConfigError
from facestyle.models.checkpoints import read_metadata, read_tensors
from facestyle.models.latent_map import LatentMap
from facestyle.models.mobile import MobileGenerator
from facestyle.models.stylegan2_generator import StyleGAN2Generator

MADE = {
    "mobile": lambda: MobileGenerator(
        (8, 8, 8, 8), w_dim=8, mapping_depth=2, preview_resolution=32
    ),
    "stylegan2": lambda: StyleGAN2Generator(resolution=64, w_dim=8, mapping_depth=2),
}


def some_map(rank=3, w_dim=8, scale=0.3):
    rng = torch.Generator().manual_seed(5)
    return LatentMap(
        torch.randn(w_dim, generator=rng),
        scale * torch.randn(w_dim, rank, generator=rng),
        torch.randn(rank, w_dim, generator=rng),
    )


@pytest.fixture(params=sorted(MADE))
def network(request):
    torch.manual_seed(0)
    return MADE[request.param]().eval().requires_grad_(False)


def pictures(network, w, resolution=64):
    return network.synthesis(w[:, None].expand(-1, network.num_ws, -1), resolution=resolution)


def test_the_centre_stays_and_the_rest_moves_linearly():
    found = some_map()
    w = torch.randn(5, 8)
    assert torch.equal(found(found.centre), found.centre)
    moved = found(w) - w
    assert torch.allclose(
        found(2 * w - found.centre) - (2 * w - found.centre), 2 * moved, atol=1e-5
    )
    assert moved.abs().min() > 0
    assert torch.linalg.matrix_rank(moved) == 3


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("resolution", [64, 32])
def test_worked_in_it_draws_what_the_mapped_codes_drew(network, share, resolution):
    found = some_map()
    w = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    plain = pictures(network, w, resolution)
    wanted = pictures(network, w + share * (found(w) - w), resolution)
    found.work_into(network.synthesis, share)
    drawn = pictures(network, w, resolution)
    assert (wanted - plain).abs().max() > 0.02 * plain.abs().max()
    assert torch.allclose(drawn, wanted, atol=2e-4 * wanted.abs().max())


def test_of_no_share_nothing_changes(network):
    before = {name: tensor.clone() for name, tensor in network.synthesis.state_dict().items()}
    some_map().work_into(network.synthesis, 0)
    for name, tensor in network.synthesis.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_codes_of_another_size_are_refused_before_anything_changes(network):
    before = {name: tensor.clone() for name, tensor in network.synthesis.state_dict().items()}
    with pytest.raises(CheckpointError, match="9 numbers does not fit codes of 8"):
        some_map(w_dim=9).work_into(network.synthesis)
    for name, tensor in network.synthesis.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    huge = 1 << 20  # whose product would be of 8 TB
    with pytest.raises(CheckpointError, match="does not fit codes of 8"):
        LatentMap(torch.zeros(huge), torch.zeros(huge, 1), torch.zeros(1, huge)).work_into(
            network.synthesis
        )


@pytest.mark.parametrize("rank", [3, 12])
def test_it_is_kept_in_half_precision(tmp_path, rank):
    found = some_map(rank, scale=1e-4)  # as small as float16 hardly holds, were it not balanced
    path = tmp_path / "map.safetensors"
    found.save(path)
    assert {tensor.dtype for tensor in read_tensors(path).values()} == {torch.float16}
    again = LatentMap.from_file(path)
    w = torch.randn(16, 8)
    change = found(w) - w
    assert torch.allclose(again(w) - w, change, atol=5e-3 * change.abs().max())


def test_parts_that_do_not_fit_each_other_are_refused():
    with pytest.raises(CheckpointError, match="shapes"):
        LatentMap(torch.zeros(8), torch.zeros(8, 3), torch.zeros(2, 8))


@pytest.mark.parametrize("damage", ["nan", "shape", "format", "tensors", "truncated", "absent"])
def test_damaged_files_are_named(tmp_path, damage):
    path = tmp_path / "map.safetensors"
    some_map().save(path)
    tensors, metadata = read_tensors(path), read_metadata(path)
    if damage == "nan":
        tensors["up"][0, 0] = float("nan")
    elif damage == "shape":
        tensors["up"] = tensors["up"][:2].clone()
    elif damage == "tensors":
        tensors["more"] = torch.zeros(1)
    elif damage == "format":
        metadata["format"] = "facestyle-style"
    save_file(tensors, path, metadata=metadata)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-20])
    elif damage == "absent":
        path.unlink()
    with pytest.raises(CheckpointError, match=r"map\.safetensors"):
        LatentMap.from_file(path)


def test_a_style_config_takes_a_share_in_bounds():
    from facestyle.styles import StyleConfig

    settings = {"name": "a", "title": "", "description": "", "generator": {}, "base_sha256": ""}
    assert StyleConfig(**settings).likeness == 0
    for wrong in (-0.1, 2.5):
        with pytest.raises(ConfigError, match="likeness"):
            StyleConfig(**settings, likeness=wrong)
