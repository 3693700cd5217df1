"""A base generator of one's own in place of the bundled one: the encoders that go with it, and its name in records.

``facestyle import`` makes such a generator's folder. Encoders that are made for it later lie there under the names of
`facestyle.models.zoo.ENCODER_FILES`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import torch

from facestyle.errors import CheckpointError, ConfigError
from facestyle.files import write_whole
from facestyle.models.checkpoints import read_metadata, save_tensors
from facestyle.models.encoder import Encoder, Space
from facestyle.models.generator import Generator, same_w, sample_z
from facestyle.models.psp_encoder import AnyEncoder, PspEncoder
from facestyle.models.zoo import (
    ENCODER_FILES,
    is_import,
    load_base_generator,
    load_encoder,
    own_encoders,
    sha256_of,
)
from facestyle.styles import OWN_BASE

__all__ = [
    "base_entry",
    "encoder_for",
    "find_encoder",
    "fitting_encoders",
    "open_base",
    "save_encoder",
    "shares_w",
    "write_base",
]

_log = logging.getLogger(__name__)

OPTIONS: dict[Space, str] = {
    "w": "--encoder", "w_plus": "--encoder-w-plus", "z_plus": "--encoder-z"
}  # fmt: skip
"""Which option of the commands names an encoder's file."""


def open_base(folder: str | Path | None = None) -> Generator:
    """G of the folder that ``facestyle import`` made, or the bundled one when None; frozen, in eval mode, float32.

    Raises:
        ConfigError: there is no such folder, or it holds something else.
        CheckpointError: no generator is in it, or one that nothing can be trained from.
    """
    if folder is None:
        return load_base_generator()
    folder = Path(folder)
    if not is_import(folder):
        what = "is no folder that" if folder.exists() else "is not there; it takes a folder that"
        raise ConfigError(
            f"--base {folder} {what} facestyle import made; make one with: facestyle import CHECKPOINT -o FOLDER"
        )
    return load_base_generator(folder)


def base_entry(generator: Generator) -> dict[str, str]:
    """What a run's settings say of G; nothing of the bundled one, which runs take unless they say otherwise."""
    return {} if generator.source is None else {"base_sha256": generator.source.sha256}


def find_encoder(generator: Generator, space: Space, path: str | Path | None = None) -> Path | None:
    """File of the encoder into a space that goes with G; None is the bundled one.

    That is the file given, else the one beside G, else the bundled one. The bundled encoders know only the codes of the
    bundled G; of other generators E_w alone is taken, where they share its W (`shares_w`).

    Raises:
        CheckpointError: none goes with it; the message says how to make one.
    """
    if path is not None:
        return Path(path)
    if generator.source is None:
        return None
    folder = generator.source.path.parent
    if (found := own_encoders(folder).get(space)) is not None:
        return found
    if space == "w" and shares_w(generator):
        return None
    reason = (
        "its W is not the bundled encoder's"
        if space == "w"
        else "the bundled one is for another generator"
    )
    raise CheckpointError(
        f"holds no encoder into {space}, and {reason}; train one with: facestyle train-encoder --base {folder} "
        f"--space {space} --faces PHOTOS --val-faces MORE -o RUN, and copy RUN/encoder.safetensors to "
        f"{folder / ENCODER_FILES[space]}; training takes one from elsewhere too, by {OPTIONS[space]}",
        path=folder,
    )  # fmt: skip


def encoder_for(generator: Generator, space: Space, path: str | Path | None = None) -> AnyEncoder:
    """The encoder into a space that goes with G, see `find_encoder`; frozen, in eval mode, float32.

    Raises:
        CheckpointError: there is none, it is damaged, into another space, or its codes do not fit G.
    """
    found = find_encoder(generator, space, path)
    encoder = load_encoder(found, space=space)
    if found is None:
        return encoder
    if misfit := _misfit(encoder, generator):
        raise CheckpointError(
            f"{misfit}; train an encoder for it with facestyle train-encoder --base", path=found
        )
    _warn_of_another_base(found, generator)
    return encoder


def fitting_encoders(generator: Generator, files: Mapping[Space, Path]) -> tuple[AnyEncoder, ...]:
    """Those encoders of a generator's folder whose codes fit it; others are left out, with a warning.

    Raises:
        CheckpointError: a file is damaged.
    """
    fitting = []
    for space, path in files.items():
        encoder = load_encoder(path, space=space)
        if misfit := _misfit(encoder, generator):
            _log.warning("%s is left out: it %s", path, misfit)
            continue
        _warn_of_another_base(path, generator)
        fitting.append(encoder)
    return tuple(fitting)


def _misfit(encoder: AnyEncoder, generator: Generator) -> str:
    """In what an encoder's codes do not fit G; empty where they do."""
    width = encoder.w_dim if isinstance(encoder, Encoder) else encoder.code_dim
    rows = 1 if encoder.space == "w" else generator.num_ws
    if (encoder.rows, width) == (rows, generator.w_dim):
        return ""
    return (
        f"gives codes of {encoder.rows} x {width} numbers, and the generator of {generator.resolution} px takes "
        f"{rows} x {generator.w_dim}"
    )


def _warn_of_another_base(path: Path, generator: Generator) -> None:
    made_for = read_metadata(path).get("base_sha256", sha256_of(generator))
    if made_for != sha256_of(generator):
        _log.warning("%s was trained for another base generator, %s", path, made_for[:12])


def shares_w(generator: Generator) -> bool:
    """Whether W is the bundled generator's, as that of StyleGAN2 trained on FFHQ is: equal z become equal w."""
    bundled = load_base_generator()
    if generator.w_dim != bundled.w_dim:
        return False
    z = sample_z(64, 0, bundled.w_dim)
    with torch.no_grad():
        found = generator.mapping(z.to(generator.w_avg.device)).float().cpu()
        wanted = bundled.mapping(z)
    return same_w(wanted, found)


def save_encoder(encoder: AnyEncoder, path: str | Path) -> None:
    """Write an encoder's file, in float16 where its values allow that.

    Raises:
        OutputError: it cannot be written.
    """
    metadata = {"format": "facestyle-encoder", "version": "1", "config": encoder.config()}
    if isinstance(encoder, PspEncoder):
        metadata["architecture"] = "psp"
    save_tensors(encoder.state_dict(), path, metadata=metadata, dtype=torch.float16)


def write_base(generator: Generator, folder: str | Path) -> None:
    """Leave G's file as it is in a style's folder, where it is not the bundled one.

    Raises:
        CheckpointError: the file that G was loaded from is gone.
        OutputError: it cannot be written.
    """
    target = Path(folder) / OWN_BASE
    if generator.source is None or generator.source.path.resolve() == target.resolve():
        return
    try:
        data = generator.source.path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"the style needs its base generator, and this file of it is gone ({error}); put it back",
            path=generator.source.path,
        ) from error
    write_whole(data, target)
