"""Strict safetensors loading: every tensor named, shaped and typed as the module asks, or a named error."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from facestyle.errors import CheckpointError, OutputError
from facestyle.files import at_home, beside, keep_mode

__all__ = [
    "bundled",
    "check_fit",
    "check_half_range",
    "is_finite",
    "load_strict",
    "read_metadata",
    "read_tensors",
    "save_tensors",
    "unfilled",
    "weights_sha256",
]


def bundled(name: str) -> Path:
    """Path of a file in the package's ``weights`` folder.

    Raises:
        CheckpointError: the installation lacks it.
    """
    path = Path(__file__).resolve().parent.parent / "weights" / name
    if not path.is_file():
        raise CheckpointError(
            "a file that comes with facestyle is missing; reinstall the package", path=path
        )
    return path


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, in the dtype they are stored in.

    Raises:
        CheckpointError: the file is absent, truncated, or no safetensors file.
    """
    try:
        with safe_open(str(at_home(Path(path))), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"cannot be read as a safetensors file ({error}); copy or download it again", path=path
        ) from error


def read_metadata(path: str | Path) -> dict[str, str]:
    """The header's free-form strings, empty if there are none.

    Raises:
        CheckpointError: the file is absent, truncated, or no safetensors file.
    """
    try:
        with safe_open(str(at_home(Path(path))), framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"cannot be read as a safetensors file ({error}); copy or download it again", path=path
        ) from error


def load_strict(
    module: nn.Module, tensors: Mapping[str, Tensor], *, path: str | Path | None = None
) -> None:
    """Load ``tensors`` into ``module``, converting to the module's dtypes.

    Raises:
        CheckpointError: a tensor is missing, unexpected, of another shape, or holds NaN or infinity.
    """
    check_fit(module, tensors, path=path)
    for name, tensor in tensors.items():
        if not is_finite(tensor):
            raise CheckpointError(
                f"tensor {name} holds NaN or infinity; the file is damaged or its training diverged",
                path=path,
                unexpected=[name],
            )
    module.load_state_dict(dict(tensors), strict=True)


def check_fit(
    module: nn.Module, tensors: Mapping[str, Tensor], *, path: str | Path | None = None
) -> None:
    """Whether these are the tensors of ``module``, which may be on torch's meta device.

    Raises:
        CheckpointError: a tensor is missing, unexpected or of another shape.
    """
    own = module.state_dict()
    missing = sorted(own.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - own.keys())
    if missing or unexpected:
        raise CheckpointError(
            f"does not fit {type(module).__name__}: {len(missing)} tensors missing {missing[:3]}, "
            f"{len(unexpected)} unexpected {unexpected[:3]}; it was made for another architecture or version",
            path=path,
            missing=missing,
            unexpected=unexpected,
        )
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise CheckpointError(
                f"tensor {name} has shape {list(tensor.shape)}, expected {list(own[name].shape)}; "
                "it was made for another architecture",
                path=path,
                unexpected=[name],
            )


def is_finite(tensor: Tensor) -> bool:
    """Whether no element is NaN or infinite; these show in the sum, which is ten times as fast to take."""
    if not tensor.is_floating_point():
        return True
    total = tensor.sum(dtype=torch.float32)
    return bool(torch.isfinite(total)) or bool(torch.isfinite(tensor).all())


def check_half_range(tensors: Mapping[str, Tensor]) -> None:
    """Whether the tensors can be stored as float16.

    Raises:
        CheckpointError: a value is too large for it.
    """
    limit = torch.finfo(torch.float16).max
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.numel() and tensor.abs().max() > limit:
            raise CheckpointError(
                f"{name} holds values beyond {limit:.0f}; store it without --fp16"
            )


class unfilled(TorchFunctionMode):
    """Context in which new modules skip filling their weights with random numbers, for `load_strict` to fill.

    It holds for the current thread only.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run ``func``, or leave the memory as it is where that would only draw numbers."""
        kwargs = kwargs or {}
        if func is torch.randn:
            func = torch.empty
        elif func in _FILLS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


_FILLS = (
    Tensor.normal_,
    Tensor.uniform_,
    nn.init.kaiming_uniform_,
    nn.init.normal_,
    nn.init.uniform_,
)


def _stored(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A floating tensor in the number type, or as it is where that would make infinity of its values."""
    if dtype is None or not tensor.is_floating_point():
        return tensor
    converted = tensor.to(dtype)
    return converted if is_finite(converted) else tensor


def save_tensors(
    tensors: Mapping[str, Tensor],
    path: str | Path,
    *,
    metadata: Mapping[str, Any],
    dtype: torch.dtype | None = None,
) -> None:
    """Write a safetensors file in one step: it is either whole or not there.

    Args:
        tensors: what to store; copied to contiguous CPU memory.
        path: the file; its folder is made.
        metadata: strings as they are, anything else as JSON.
        dtype: convert floating tensors, e.g. to ``torch.float16``, but for those with values beyond its range.

    Raises:
        OutputError: the file cannot be written.
    """
    path = at_home(Path(path))
    ready = {name: _stored(t, dtype).detach().cpu().contiguous() for name, t in tensors.items()}
    header = {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items()}
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = beside(path, ".part")
        with temporary.open("xb") as file:
            mode = os.fstat(file.fileno()).st_mode
        save_file(ready, temporary, metadata=header)
        keep_mode(temporary, path, mode)  # safetensors does not ask the umask
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()
        if isinstance(error, OSError | SafetensorError):
            raise OutputError(
                f"weights cannot be written ({error}); check free space and permissions", path=path
            ) from error
        raise


def weights_sha256(net: nn.Module) -> str:
    """Sha256 of a network's parameters and buffers, in their order and number types."""
    digest = hashlib.sha256()
    for tensor in net.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
