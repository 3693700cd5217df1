"""Public checkpoints of StyleGAN2 and its relatives, imported without running anything in them."""

from __future__ import annotations

from facestyle.models.importers.checkpoints.containers import read_checkpoint
from facestyle.models.importers.checkpoints.detect import Checkpoint, open_checkpoint
from facestyle.models.importers.checkpoints.folder import import_checkpoint

__all__ = ["Checkpoint", "import_checkpoint", "open_checkpoint", "read_checkpoint"]
