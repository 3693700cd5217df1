"""Fit `models.appearance_probe`: ridge regression from identity embeddings of G's samples to what FaceRes says."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from facestyle.errors import ConfigError
from facestyle.evaluation.appearance import AppearanceJudge, load_appearance
from facestyle.evaluation.people import SAMPLE_PSI, sample_w
from facestyle.latents import broadcast
from facestyle.models.checkpoints import save_tensors
from facestyle.models.generator import Generator
from facestyle.models.identity import load_identity
from facestyle.models.zoo import load_base_generator

__all__ = ["fit_probe", "wanted_looks"]

_FIRST_SEED = 100_000
"""Far from the seeds of sheets, reports and held-out faces."""

_RIDGE = 2.0


def wanted_looks(looks: Tensor) -> Tensor:
    """The probe's answers [N, 2] by what `AppearanceJudge.look` says: logit of "male" / 3, (years - 30) / 12."""
    return torch.stack([torch.logit(looks[:, 0].clamp(0.01, 0.99)) / 3, (looks[:, 1] - 30) / 12], 1)


def fit_probe(
    generator: Generator, judge: AppearanceJudge, *, count: int = 1200, held_out: int = 200
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The layer's tensors, and the correlations "male" and "years" with the judge on people it was not fitted to.

    Args:
        generator: G.
        judge: says how male and how old the samples look.
        count: of samples.
        held_out: so many of them only test it.

    Raises:
        ConfigError: fewer than 2 samples to test it, or to fit it to.
    """
    if held_out < 2 or count - held_out < 2:
        raise ConfigError(f"cannot fit to {count} samples and test on {held_out} of them")
    identity = load_identity(generator.w_avg.device)
    embedded: list[Tensor] = []
    looks: list[Tensor] = []
    with torch.no_grad():
        for w in tqdm(sample_w(generator, count, SAMPLE_PSI, _FIRST_SEED).split(8), desc="samples"):
            img = generator.synthesis(
                broadcast(w, generator.num_ws), resolution=generator.preview_resolution
            )
            embedded.append(identity(img).cpu().double())
            looks.append(judge.look(img.clamp(-1, 1)).cpu().double())
    x = torch.cat([torch.cat(embedded), torch.ones(count, 1, dtype=torch.float64)], 1)
    y = wanted_looks(torch.cat(looks))
    n = count - held_out
    ridge = _RIDGE * torch.eye(x.shape[1], dtype=torch.float64)
    found = torch.linalg.solve(x[:n].T @ x[:n] + ridge, x[:n].T @ y[:n])
    seen = x[n:] @ found
    agreement = {
        name: torch.corrcoef(torch.stack([seen[:, i], y[n:, i]]))[0, 1].item()
        for i, name in enumerate(("male", "years"))
    }
    return {"weight": found[:-1].T.float(), "bias": found[-1].float()}, agreement


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m facestyle.training.fit_probe -o appearance_probe.safetensors``: fit, say how well, write."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--count", type=int, default=1200, help="samples of G")
    args = parser.parse_args(argv)
    tensors, agreement = fit_probe(load_base_generator(), load_appearance(), count=args.count)
    print(", ".join(f"{name}: r = {value:.3f}" for name, value in agreement.items()))
    save_tensors(
        tensors,
        args.output,
        metadata={
            "format": "facestyle-appearance-probe",
            "version": "1",
            "agreement": {name: round(value, 3) for name, value in agreement.items()},
            "samples": str(args.count),
        },
        dtype=torch.float16,
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
