"""How male and how old a face looks, read off its identity embedding by one linear layer.

It is fitted to what FaceRes says of samples of G (``python -m facestyle.training.fit_probe``), so that training may ask
it in place of FaceRes, which judges, and needs no download.
"""

from __future__ import annotations

import torch
from torch import nn

from facestyle.models.checkpoints import bundled, load_strict, read_tensors, unfilled
from facestyle.models.identity import EMBEDDING

__all__ = ["PROBE_FILE", "load_probe"]

PROBE_FILE = "appearance_probe.safetensors"


def load_probe(device: str | torch.device = "cpu") -> nn.Linear:
    """The layer, frozen: embeddings [B, 512] of `models.identity` to [B, 2]: logit of "male" / 3, (years - 30) / 12.

    Raises:
        CheckpointError: the bundled file is damaged.
    """
    path = bundled(PROBE_FILE)
    with unfilled():
        probe = nn.Linear(EMBEDDING, 2)
    load_strict(probe, read_tensors(path), path=path)
    return probe.eval().requires_grad_(False).to(device)
