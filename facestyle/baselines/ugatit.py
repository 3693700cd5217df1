"""U-GAT-IT as a baseline: trained here, or imported from the public PyTorch code's checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from facestyle.baselines.base import (
    Baseline,
    PictureSources,
    check_crops,
    count_parameters,
    prepared,
    resize,
)
from facestyle.baselines.ugatit_networks import UgatitGenerator, from_public
from facestyle.baselines.ugatit_training import (
    FILE,
    FORMAT,
    UgatitConfig,
    save_generator,
    train_ugatit,
)
from facestyle.errors import CheckpointError, ConfigError
from facestyle.models.checkpoints import load_strict, read_metadata, read_tensors, unfilled
from facestyle.models.generator import Generator
from facestyle.models.importers.checkpoints.containers import read_checkpoint
from facestyle.models.importers.checkpoints.network import fitted, named_errors, tensors_in
from facestyle.runtime import choose_device

__all__ = ["Ugatit", "import_ugatit"]

_PUBLIC_KEYS = {"genA2B", "genB2A", "disGA", "disGB", "disLA", "disLB"}


class Ugatit(Baseline):
    """A generator from photos to a style, trained on two unpaired sets.

    Args:
        config: how it is trained.
        faces: folders or zips of aligned photos to train on; samples of ``base`` when None.
        base: G; the bundled one when None.
        minutes: of training at most.
        device: where it trains and runs; the best there is when None.
    """

    name: ClassVar[str] = "ugatit"

    def __init__(
        self,
        config: UgatitConfig | None = None,
        *,
        faces: PictureSources | None = None,
        base: Generator | None = None,
        minutes: float | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        self.config = config or UgatitConfig()
        self.faces = faces
        self.base = base
        self.minutes = minutes
        self.device = choose_device(device)
        self.net: UgatitGenerator | None = None

    @property
    def resolution(self) -> int:
        """Side in pixels of the pictures."""
        return self.config.side_px if self.net is None else self.net.side_px

    @property
    def parameters(self) -> int:
        """Of the one generator."""
        return count_parameters(prepared(self.net, self))

    def prepare(self, pictures: PictureSources, out: str | Path, *, progress: bool = True) -> Self:
        """Train or resume in ``out``, within the minutes given; see :meth:`Baseline.prepare`."""
        train_ugatit(
            pictures, out, self.config, faces=self.faces, base=self.base, minutes=self.minutes,
            device=self.device, progress=progress,
        )  # fmt: skip
        return self.load(out)

    def load(self, out: str | Path) -> Self:
        """The generator of a run, finished or not, or of an import."""
        path = Path(out) / FILE
        metadata = read_metadata(path)
        if metadata.get("format") != FORMAT:
            raise CheckpointError("holds no U-GAT-IT generator", path=path)
        try:
            with unfilled():
                net = UgatitGenerator(**json.loads(metadata["config"]))
        except (KeyError, ValueError, TypeError, ConfigError) as error:
            raise CheckpointError(f"describes no generator ({error})", path=path) from error
        load_strict(net, read_tensors(path), path=path)
        self.net = net.eval().requires_grad_(False).to(self.device)
        return self

    def stylize(self, crops: Tensor, *, first: int = 0, progress: bool = False) -> Tensor:
        """One pass through the generator; see :meth:`Baseline.stylize`."""
        check_crops(crops)
        net = prepared(self.net, self)
        with torch.inference_mode():
            img, _ = net(resize(crops.to(self.device), net.side_px))
        assert isinstance(img, Tensor)
        return img


def import_ugatit(file: str | Path, out: str | Path) -> Path:
    """Convert a checkpoint of the public PyTorch code, light or full, for :meth:`Ugatit.load`; the file written.

    Args:
        file: such as ``anime_params_latest.pt``; its ``genA2B`` is taken.
        out: folder; made when absent.

    Raises:
        CheckpointError: the file is damaged, would run code, or holds another network.
        OutputError: ``out`` cannot be written.
    """
    file = Path(file)
    content = read_checkpoint(file)
    if not isinstance(content, dict) or "genA2B" not in content or set(content) - _PUBLIC_KEYS:
        found = (
            sorted(str(name)[:60] for name in content)[:8]
            if isinstance(content, dict)
            else type(content).__name__
        )
        raise CheckpointError(
            f"is no U-GAT-IT checkpoint: expected {', '.join(sorted(_PUBLIC_KEYS))}, found {found}",
            path=file,
        )
    with named_errors(file, "its genA2B should be a generator of U-GAT-IT's public PyTorch code"):
        config, tensors = from_public(tensors_in(content["genA2B"], file))
        net = fitted(lambda: UgatitGenerator(**config), tensors, file)
    return save_generator(net, out)
