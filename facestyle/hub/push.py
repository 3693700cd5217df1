"""Upload a style's folder to the Hugging Face Hub: what goes, what stays, and nothing by accident."""

from __future__ import annotations

import dataclasses
import glob
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from facestyle.errors import ConfigError
from facestyle.hub.cards import check_card, hub_license, is_license_stated, render_card
from facestyle.hub.client import uploading
from facestyle.hub.download import belongs
from facestyle.hub.package import SAMPLES, complete, license_text
from facestyle.hub.scores import line
from facestyle.image import IMAGE_SUFFIXES
from facestyle.models.zoo import load_encoder, load_style_base, load_style_generator
from facestyle.styles import StyleConfig, style_folder

__all__ = ["PushPlan", "licensed", "plan_push", "push_style"]


@dataclass(frozen=True, kw_only=True)
class PushPlan:
    """What a push would do.

    Attributes:
        folder: of the style.
        repo_id: where it goes.
        files: name in the repository -> size in bytes; None of samples that are drawn when it is pushed.
        pictures: training pictures among them.
        left_out: names of what stays here.
        card: text of the repository's README.md.
    """

    folder: Path
    repo_id: str
    files: dict[str, int | None]
    pictures: int
    left_out: list[str]
    card: str

    def format(self) -> str:
        """For a person: files with sizes, what stays here, and the card."""
        lines = [f"{self.folder} -> {self.repo_id}", ""]
        for name, size in self.files.items():
            shown = "to be drawn" if size is None else f"{size / 1e6:.3f} MB"
            lines.append(f"{shown:>13}  {name}")
        lines += [f"{sum(filter(None, self.files.values())) / 1e6:10.3f} MB  together"]
        if self.pictures:
            lines += ["", f"training pictures among them: {self.pictures}"]
        if self.left_out:
            shown = ", ".join(self.left_out[:5])
            more = len(self.left_out) - 5
            lines += ["", f"stays here: {shown}{f' and {more} more' if more > 0 else ''}"]
        return "\n".join([*lines, "", "README.md:", "", self.card])


def plan_push(
    folder: str | Path,
    repo_id: str,
    *,
    license: str | None = None,
    data_license: str | None = None,
    include_pictures: bool = False,
) -> PushPlan:
    """What :func:`push_style` would upload; the style is read whole, and nothing is written or sent.

    Args:
        folder: of the style, or of its training run.
        repo_id: "user/name".
        license: of the weights, where the style does not say it.
        data_license: of the training pictures, where the style does not say it.
        include_pictures: also upload pictures that lie in the folder.

    Raises:
        CheckpointError: there is no style, or it is damaged.
        ConfigError: the licence of the training pictures is not known, the style says another licence of its weights
            than ``license``, the card or the licence file name another than the style, or the card claims what was not
            measured or is no UTF-8 text.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo_id):
        raise ConfigError(f"{repo_id!r} is no name of a Hub repository; it is written USER/NAME")
    folder = style_folder(folder)
    load_style_generator(folder, load_style_base(folder))
    config = StyleConfig.from_file(folder / "config.json")
    if config.encoder != "base":
        load_encoder(folder / config.encoder)
    stated = licensed(config, license, data_license)
    has_samples = (folder / "samples").is_dir()
    readme = folder / "README.md"
    card = _read_card(readme) if readme.is_file() else ""
    if card:
        check_card(card, folder)
    else:
        samples = None if has_samples else [SAMPLES]
        card = render_card(folder, repo_id=repo_id, config=stated, samples=samples)
    _refuse_old_texts(folder, card, stated)
    inside = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    chosen = [path for path in inside if belongs(path.relative_to(folder))]
    pictures = [
        path for path in inside if path.suffix.lower() in IMAGE_SUFFIXES and path not in chosen
    ]
    if include_pictures:
        chosen += pictures
    files: dict[str, int | None] = {
        path.relative_to(folder).as_posix(): path.stat().st_size for path in chosen
    }
    files.setdefault("README.md", len(card.encode()))
    if not list(folder.glob("LICENSE*")):
        files["LICENSE.md"] = len(license_text(stated).encode())
    if not has_samples:
        files[SAMPLES] = None
    stays = [path.relative_to(folder).as_posix() for path in inside]
    return PushPlan(
        folder=folder,
        repo_id=repo_id,
        files=dict(sorted(files.items())),
        pictures=len(pictures) if include_pictures else 0,
        left_out=[name for name in stays if name not in files],
        card=card,
    )


def push_style(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    create_pr: bool = False,
    revision: str | None = None,
    token: str | bool | None = None,
    commit_message: str | None = None,
    license: str | None = None,
    data_license: str | None = None,
    include_pictures: bool = False,
    again: str | None = None,
) -> str:
    """Upload a style; the address of the commit, or of the pull request.

    Licence, card and sample pictures are added to the folder where they lack. Uploads go to a commit of their own: one
    that breaks off leaves the repository as it was, and parts that arrived are not sent again.

    Args:
        folder: of the style, or of its training run.
        repo_id: "user/name"; made if it is not there.
        private: of a repository that is made.
        create_pr: open a pull request in place of a commit.
        revision: branch that is written to.
        token: Hub token; the stored one when None.
        commit_message: title of the commit.
        license: of the weights, an SPDX id or words, where the style does not say it; kept in its config. Without it
            the card says that it is not stated.
        data_license: of the training pictures, where the style does not say it; kept in its config.
        include_pictures: also upload pictures that lie in the folder.
        again: what an error says to do once more; the command `facestyle push` when None.

    Raises:
        CheckpointError, ConfigError: see :func:`plan_push`; nothing was sent.
        OutputError: the folder cannot be written.
        UploadError: the token, the rights or the network failed; the message holds the command that goes on.
    """
    from huggingface_hub import HfApi

    from facestyle.stylizer import FaceStylizer

    plan = plan_push(
        folder, repo_id, license=license, data_license=data_license, include_pictures=include_pictures
    )  # fmt: skip
    folder = plan.folder
    config = StyleConfig.from_file(folder / "config.json")
    stated = licensed(config, license, data_license)
    if stated != config:
        stated.save(folder / "config.json")
    has_samples = (folder / "samples").is_dir()
    complete(folder, None if has_samples else FaceStylizer.from_pretrained(folder), repo_id=repo_id)
    plan = plan_push(folder, repo_id, include_pictures=include_pictures)
    if again is None:
        options = {
            "--private": private, "--create-pr": create_pr, "--revision": revision,
            "--message": commit_message, "--include-pictures": include_pictures,
        }  # fmt: skip
        words = ["facestyle", "push", str(folder), repo_id]
        for name, value in options.items():
            if value:
                words += [name] if value is True else [name, str(value)]
        again = shlex.join(words)
    api = HfApi(token=token)
    with uploading(repo_id, again):
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            allow_patterns=[glob.escape(name) for name in plan.files],
            revision=revision,
            create_pr=create_pr,
            commit_message=commit_message or f"Style {config.name}",
        )
    return commit.pr_url or str(commit.commit_url)


def licensed(config: StyleConfig, license: str | None, data_license: str | None) -> StyleConfig:
    """The config with the licences of its weights, if it is known, and of its training pictures.

    Raises:
        ConfigError: the latter is not known, or the config says another licence of either.
    """
    if license:
        if not is_license_stated(config.license):
            config = dataclasses.replace(config, license=license)
        elif config.license.lower() != license.lower():
            raise ConfigError(
                f"the style says that its weights are under {config.license}, and {license} was asked for; leave "
                "--license out, or change the license in its config.json"
            )
    known = str(config.data.get("license") or "")
    if data_license and not is_license_stated(known):
        return dataclasses.replace(config, data={**config.data, "license": data_license})
    if data_license and known.lower() != data_license.lower():
        raise ConfigError(
            f"the style says that its training pictures are under {known}, and {data_license} was asked for; leave "
            "--data-license out, or change it in its config.json"
        )
    if not is_license_stated(known):
        raise ConfigError(
            "the licence of the training pictures is not known, and who uses the style must know it; state it with "
            "--data-license (an SPDX id such as CC0-1.0, or words)"
        )
    return config


def _read_card(readme: Path) -> str:
    try:
        return readme.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{readme} is no UTF-8 text, as the Hub wants cards ({error}); save it as UTF-8, or delete it and push "
            "again, it is made anew"
        ) from error


def _refuse_old_texts(folder: Path, card: str, stated: StyleConfig) -> None:
    """Texts that were written before a licence was stated, or another was, must not go with it.

    Raises:
        ConfigError: the card, or a licence file in facestyle's words, names another licence than the style.
    """
    from huggingface_hub import ModelCard

    path = folder / "LICENSE.md"
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    data, (license, name) = ModelCard(card).data, hub_license(stated.license)
    is_old = is_license_stated(stated.license) and (
        str(data.get("license")).lower() != license
        or (name is not None and str(data.get("license_name")).lower() != name)
    )
    old = ["README.md"] if is_old or _names_another(card, stated) else []
    old += ["LICENSE.md"] if _names_another(text, stated) else []
    if old:
        raise ConfigError(
            f"{' and '.join(old)} in {folder} name another licence than the style does: {stated.license} of its "
            f"weights, {stated.data['license']} of its pictures; delete them and push again, they are made anew, or "
            "correct them"
        )


def _names_another(text: str, stated: StyleConfig) -> bool:
    """Whether facestyle's own words in a text name another licence than is stated; other words are not judged."""
    pictures = line(stated.data["license"])
    said = {"The pictures they were trained on": pictures, "Pictures it was trained on": pictures}
    if is_license_stated(stated.license):
        weights = line(stated.license)
        said |= {"The weights in this folder": weights, "Weights of this style": weights}
    rows = [row.replace("\\|", "|").lower() for row in text.splitlines()]
    return any(
        row.startswith(f"- {words}: **".lower())
        and not row.startswith(f"- {words}: **{now}**".lower())
        for row in rows
        for words, now in said.items()
    )
