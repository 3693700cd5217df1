"""Features of a whole set of pictures, computed once and kept in a file."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from facestyle.errors import CheckpointError, ConfigError
from facestyle.image import load_image
from facestyle.models.checkpoints import read_metadata, read_tensors, save_tensors
from facestyle.picture_files import iter_images

__all__ = [
    "FeatureNet",
    "Pictures",
    "as_rgb",
    "in_batches",
    "iter_pictures",
    "pictures_digest",
    "set_features",
]

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]
Pictures = str | Path | Sequence[str | Path | Image.Image]
"""A folder or zip, several of them, or pictures."""

_FORMAT = "facestyle-features"


class FeatureNet(Protocol):
    """A network that describes pictures one by one, such as ``InceptionFeatures``.

    Attributes:
        name: the network with its preprocessing; another name means other features.
    """

    name: str

    def __call__(self, images: Iterable[Image.Image]) -> Array:
        """[N, D] float32 features of N pictures."""
        ...


def in_batches(
    images: Iterable[Image.Image],
    describe: Callable[[list[Image.Image]], npt.NDArray[np.float32]],
    size: int,
) -> npt.NDArray[np.float32]:
    """[N, D] features of N pictures, ``size`` of them in memory at a time.

    Args:
        images: the pictures.
        describe: gives [B, D] for B of them.
        size: of a batch.

    Raises:
        ConfigError: there are no pictures.
    """
    pictures = iter(images)
    parts = []
    while batch := list(islice(pictures, size)):
        parts.append(describe(batch))
    if not parts:
        raise ConfigError("features need at least one picture")
    return np.concatenate(parts)


def iter_pictures(pictures: Pictures) -> Iterator[Image.Image]:
    """The pictures, in order, one in memory at a time.

    Raises:
        DatasetError: a folder or zip is not there, broken, or without pictures.
    """
    if isinstance(pictures, str | Path):
        yield from (image for _, image in iter_images(pictures))
        return
    for item in pictures:
        if isinstance(item, Image.Image):
            yield as_rgb(item)
        else:
            yield from iter_pictures(item)


def as_rgb(picture: Image.Image) -> Image.Image:
    """A picture as a file of it would be read: upright, with what is transparent on white."""
    return picture if picture.mode == "RGB" else load_image(picture)


def set_features(
    pictures: Pictures, networks: Mapping[str, FeatureNet], cache: str | Path | None = None
) -> dict[str, Array]:
    """Features [N, D] of the N pictures by each network.

    Args:
        pictures: the set.
        networks: by the key their features go under.
        cache: safetensors file to take them from, and to leave them in. It counts only if the pictures' pixels and the
            networks' names are still the same; a file that is damaged or of other pictures is replaced.

    Raises:
        DatasetError: the pictures cannot be used.
        ConfigError: there are none.
        OutputError: the cache cannot be written.
    """
    if cache is None:
        return {key: net(iter_pictures(pictures)) for key, net in networks.items()}
    digest = pictures_digest(pictures)
    known = _read(Path(cache), digest)
    names = {key: name for key, (name, _) in known.items()}
    features = {key: known[key][1] for key, net in networks.items() if names.get(key) == net.name}
    if wanted := networks.keys() - features.keys():
        features |= {key: networks[key](iter_pictures(pictures)) for key in wanted}
        names |= {key: networks[key].name for key in wanted}
        kept = {key: values for key, (_, values) in known.items()} | features
        save_tensors(
            {key: torch.from_numpy(values) for key, values in kept.items()},
            cache,
            metadata={"format": _FORMAT, "pictures": digest, "networks": names},
        )
    return features


def pictures_digest(pictures: Pictures) -> str:
    """Of every picture's size and pixels, in order."""
    total = hashlib.sha256()
    for image in iter_pictures(pictures):
        total.update(f"{image.mode} {image.size} ".encode())
        total.update(image.tobytes())
    return total.hexdigest()


def _read(path: Path, digest: str) -> dict[str, tuple[str, Array]]:
    """Key to the network's name and the features, of a cache of these pictures; else nothing."""
    if not path.is_file():
        return {}
    try:
        metadata, tensors = read_metadata(path), read_tensors(path)
    except CheckpointError as error:
        log.warning("features are computed again: %s", error)
        return {}
    if metadata.get("format") != _FORMAT or metadata.get("pictures") != digest:
        return {}
    names = json.loads(metadata["networks"])
    return {key: (names[key], tensor.numpy()) for key, tensor in tensors.items()}
