"""Fit the generator's preview head: 256 px pictures from the features at 128 px, like the full picture made small.

The head is one modulated 1x1 convolution to Haar coefficients. Its modulation starts from that of the next block's
``up`` step, which reads the same features; given a modulation the weights are a least-squares problem, and Adam then
moves both.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from facestyle.errors import ConfigError
from facestyle.latents import broadcast
from facestyle.models.checkpoints import read_metadata, read_tensors, save_tensors
from facestyle.models.generator import Generator, sample_z
from facestyle.models.mobile import MobileSynthesis

__all__ = ["fit_preview", "preview_error"]


def preview_error(generator: Generator, count: int = 16, *, seed: int = 10_000) -> dict[str, float]:
    """How far the preview is from the full picture made small, over ``count`` samples at psi 1.

    Returns:
        "rmse" and "mae" in units of [-1, 1], "psnr_db".
    """
    squares, absolutes = [], []
    with torch.inference_mode():
        for z in sample_z(count, seed, generator.w_dim).split(1):
            w_plus = broadcast(generator.mapping(z), generator.num_ws)
            small = _small(generator, w_plus)
            change = generator.synthesis(w_plus, resolution=generator.preview_resolution) - small
            squares.append(change.square().mean())
            absolutes.append(change.abs().mean())
    mse = torch.stack(squares).mean()
    return {
        "rmse": mse.sqrt().item(),
        "mae": torch.stack(absolutes).mean().item(),
        "psnr_db": (10 * torch.log10(4 / mse)).item(),
    }


def _small(generator: Generator, w_plus: Tensor) -> Tensor:
    img: Tensor = generator.synthesis(w_plus)
    return F.interpolate(img, size=generator.preview_resolution, mode="area")


def fit_preview(
    generator: Generator,
    *,
    samples: int = 300,
    pixels: int = 1024,
    steps: int = 3000,
    seed: int = 0,
    progress: bool = True,
) -> Generator:
    """A copy of the generator with a freshly fitted preview head.

    Args:
        generator: G; its own head is not looked at.
        samples: pictures to learn from, psi drawn from [0.5, 1].
        pixels: positions kept of each.
        steps: of Adam, 64 pictures a step, rate falling to 0.
        seed: of every random number.
        progress: show bars.

    Raises:
        ConfigError: the generator has no preview head: the smaller pictures of StyleGAN2 come from its own blocks.
    """
    if not isinstance(generator.synthesis, MobileSynthesis):
        raise ConfigError(
            f"only the mobile generator has a preview head to fit, and this one is {generator.architecture}: its "
            "smaller pictures come from its own blocks"
        )
    fitted = copy.deepcopy(generator)
    synthesis: Any = fitted.synthesis
    head, after = synthesis.to_preview, synthesis.blocks[synthesis.preview_blocks].up
    rng = torch.Generator().manual_seed(seed)
    features, targets, rows = [], [], []
    kept: list[Tensor] = []
    hook = head.register_forward_hook(lambda _m, args, _out: kept.append(args[0].detach()))
    side = generator.preview_resolution // 2
    with torch.no_grad():
        for _ in tqdm(range(samples), desc="samples", disable=not progress):
            z = torch.randn(1, generator.w_dim, generator=rng)
            psi = 0.5 + 0.5 * torch.rand((), generator=rng)
            w = generator.w_avg + psi * (generator.mapping(z) - generator.w_avg)
            w_plus = broadcast(w, generator.num_ws)
            synthesis(w_plus, resolution=generator.preview_resolution)
            wanted = F.conv2d(_small(generator, w_plus), head.haar, stride=2, groups=3)
            chosen = torch.randperm(side * side, generator=rng)[:pixels]
            features.append(kept.pop().flatten(2)[0, :, chosen].T)
            targets.append(wanted.flatten(2)[0, :, chosen].T)
            rows.append(w[0])
    hook.remove()
    x, y, codes = torch.stack(features), torch.stack(targets), torch.stack(rows)

    with torch.no_grad():
        head.affine.weight.copy_(after.weight)
        head.affine.bias.copy_(after.bias)
        scaled = x * (head.affine(codes) * head.gain)[:, None]
        flat = torch.cat([scaled.flatten(0, 1), torch.ones(x.shape[0] * x.shape[1], 1)], dim=1)
        gram = flat.double().T @ flat.double()
        gram += 1e-6 * gram.diagonal().mean() * torch.eye(gram.shape[0], dtype=gram.dtype)
        solved = torch.linalg.solve(gram, flat.double().T @ y.flatten(0, 1).double()).float()
        head.weight.copy_(solved[:-1].T[:, :, None, None])
        head.bias.copy_(solved[-1])

    head.requires_grad_(True)
    optimizer = torch.optim.Adam(
        [
            {"params": [p], "lr": 3e-3 * max(p.detach().square().mean().sqrt().item(), 1e-3)}
            for p in head.parameters()
        ]
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    for _ in tqdm(range(steps), desc="fit", disable=not progress):
        chosen = torch.randint(x.shape[0], (64,), generator=rng)
        part = torch.randint(x.shape[1], (64,), generator=rng)
        style = head.affine(codes[chosen]) * head.gain
        guess = (x[chosen][:, part] * style[:, None]) @ head.weight[:, :, 0, 0].T + head.bias
        loss = F.mse_loss(guess, y[chosen][:, part])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return fitted.eval().requires_grad_(False)


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m facestyle.training.preview IN [-o OUT]``: the preview's error; with OUT, fit, compare, write."""
    from facestyle.models.zoo import load_base_generator

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("generator", help="safetensors file of a base generator")
    parser.add_argument("-o", "--output")
    args = parser.parse_args(argv)
    before = load_base_generator(args.generator)
    print("before", preview_error(before))
    if args.output is None:
        return 0
    after = fit_preview(before)
    print("after ", preview_error(after))
    tensors = read_tensors(args.generator)
    head = after.synthesis.state_dict()
    for name, tensor in tensors.items():
        if name.startswith("synthesis.to_preview."):
            tensors[name] = head[name.removeprefix("synthesis.")].to(tensor.dtype)
    save_tensors(tensors, args.output, metadata=read_metadata(args.generator))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
