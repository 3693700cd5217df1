"""Xet storage for the local Hub: a folder that the client's own package hf_xet chunks files into and reads from.

hf_xet takes ``local://FOLDER`` for the address of a storage server. That scheme is not documented and may go away.
"""

from __future__ import annotations

import struct
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from facestyle.testing.hub_repos import StoredFile

__all__ = ["XetFile", "XetStore"]

_RECORD_BYTES = 48
_HAS_VERIFICATION, _HAS_METADATA = 1 << 31, 1 << 30
_TOKEN_S = 3600


class XetStore:
    """Files by their Xet hash in a folder.

    Args:
        folder: of the storage.

    Attributes:
        address: where clients send chunks to.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.address = f"local://{self.folder}"

    def token(self) -> tuple[str, int]:
        """A token and when it expires, in seconds since 1970; the storage looks at neither."""
        return "xet_local", int(time.time()) + _TOKEN_S

    def hash_of(self, sha256: str) -> str | None:
        """Xet hash of the stored file with this SHA-256; None when it is not there."""
        for shard in self.folder.rglob("*.mdb"):
            for found, hash_ in _files_of(shard.read_bytes()):
                if found == sha256:
                    return hash_
        return None

    def read(self, sha256: str, size: int) -> bytes:
        """All bytes of the stored file with this SHA-256, when no other process has the storage open.

        Raises:
            KeyError: it is not there.
        """
        import hf_xet

        hash_ = self.hash_of(sha256)
        if hash_ is None:
            raise KeyError(sha256)
        token, expires = self.token()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / sha256
            with hf_xet.XetSession().new_file_download_group(
                endpoint=self.address, token=token, token_expiry_unix_secs=expires
            ) as group:
                group.start_download_file(hf_xet.XetFileInfo(hash_, size), str(path))
            return path.read_bytes()


class XetFile(StoredFile):
    """A file that is read from the storage when its content is asked for, as clients read it themselves."""

    def __init__(self, store: XetStore, sha256: str, size: int) -> None:
        super().__init__(b"", is_lfs=True)
        self.sha256 = sha256
        self._size, self._store = size, store

    @property
    def size(self) -> int:
        """Of the content, in bytes."""
        return self._size

    @property
    def content(self) -> bytes:
        """All its bytes."""
        return self._store.read(self.sha256, self.size)


def _files_of(shard: bytes) -> Iterator[tuple[str, str]]:
    """SHA-256 and Xet hash of every file that a shard lists.

    After the header come, for each file: a record (hash, flags, number of segments), its segments, as many records that
    verify them, and one that begins with the SHA-256; flags say which are there. A hash of ones ends the list.
    """
    at = _RECORD_BYTES
    while at + _RECORD_BYTES <= len(shard) and shard[at : at + 32] != b"\xff" * 32:
        flags, segments = struct.unpack_from("<II", shard, at + 32)
        after = at + _RECORD_BYTES * (1 + segments * (2 if flags & _HAS_VERIFICATION else 1))
        if flags & _HAS_METADATA:
            yield _as_hex(shard[after : after + 32]), _as_hex(shard[at : at + 32])
            after += _RECORD_BYTES
        at = after


def _as_hex(stored: bytes) -> str:
    """A digest as people write it; it is stored as four little-endian numbers."""
    return "".join(stored[i : i + 8][::-1].hex() for i in range(0, 32, 8))
