"""A judge's entries are what the measures give by themselves; what cannot be measured says why."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from facestyle.errors import ConfigError, DatasetError, DownloadError, ImageError
from facestyle.evaluation import metrics as module
from facestyle.evaluation import report, sweep
from facestyle.evaluation.appearance import AppearanceJudge
from facestyle.evaluation.cmmd import cmmd
from facestyle.evaluation.judge_specs import Preprocess
from facestyle.evaluation.judges import IdentityJudge
from facestyle.evaluation.kid import fid, kid
from facestyle.evaluation.metrics import (
    MEASURES,
    QUICK,
    StyleJudge,
    read_metrics,
    save_metrics,
    style_metrics,
)
from facestyle.evaluation.people import People, pil_pictures, sample_people
from facestyle.evaluation.perceptual import HedVgg16, PerceptualDistance
from facestyle.evaluation.skin import THREE_GROUPS, drift_by_group, skin_drift
from facestyle.evaluation.sweep import sweep_report
from facestyle.image import to_tensor
from facestyle.models.generator import sample_z
from facestyle.models.mobile import MobileGenerator
from facestyle.styles import StyleConfig

SIDE_PX = 128
SET_ENTRIES = ("fid", "kid_x1000", "cmmd")
PAIR_ENTRIES = ("lpips", "perceptual", "identity_distance")


class Grid:
    """Stands for Inception or CLIP: the means of a picture's nine fields, 27 numbers."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, images: Iterable[Image.Image]) -> Any:
        small = [image.resize((3, 3), Image.Resampling.BOX) for image in images]
        return np.stack([np.asarray(image, np.float32).ravel() / 255 for image in small])


class Fields(nn.Module):
    """Stands for an identity network: a fixed random projection of a small picture."""

    def __init__(self) -> None:
        super().__init__()
        seeded = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3 * 16 * 16, 24, generator=seeded))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight


class Halves(nn.Module):
    """Stands for an appearance network: "male" is the upper half's brightness, years the lower half's times 60."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        upper, lower = ((half.mean((1, 2, 3)) / 2 + 1) / 2 for half in x.chunk(2, 2))
        return torch.stack([upper * self.gain, 60 * lower], 1)


def squared(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().mean((1, 2, 3))


def faces(count: int, seed: int, level: float = 0.6) -> Tensor:
    """Smooth random pictures uint8 [count, 3, 128, 128] around a level."""
    seeded = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=seeded) * 0.5 + level - 0.25
    smooth = nn.functional.interpolate(coarse, size=SIDE_PX, mode="bicubic").clamp(0, 1)
    return (smooth * 255).round().to(torch.uint8)


def identity() -> IdentityJudge:
    preprocess = Preprocess(
        frame_px=(16, 16), top=0, left=0, size_px=16, mean=(127.5,) * 3, scale=64.0
    )
    return IdentityJudge("fields", Fields(), preprocess, same=0.9, different=0.4)


def make_judge(style: Tensor, **changes: Any) -> StyleJudge:
    inception, clip = Grid("grid"), Grid("grid of clip")
    features = inception(pil_pictures(style))
    given: dict[str, Any] = {
        "inception": inception,
        "clip": clip,
        "distances": {
            "lpips": PerceptualDistance("LPIPS, supposedly", squared),
            "perceptual": PerceptualDistance("squares", squared),
        },
        "identity": identity(),
        "appearance": AppearanceJudge("halves", Halves(), identity().preprocess),
        **changes,
    }
    return StyleJudge({"inception": features, "clip": features}, **given)


@pytest.fixture(scope="module")
def generator() -> MobileGenerator:
    torch.manual_seed(0)
    net = MobileGenerator((8, 8, 8, 8, 8), w_dim=16, mapping_depth=1, preview_resolution=32)
    net.eval().requires_grad_(False)
    # Fresh weights draw grey; spread the picture's values over the range.
    img = net(sample_z(4, 0, 16))
    net.synthesis.to_image.weight.mul_(0.4 / img.std())  # type: ignore[operator, union-attr]
    return net


@pytest.fixture(scope="module")
def styled(generator: MobileGenerator) -> MobileGenerator:
    """Another synthesis network on the same codes."""
    other = copy.deepcopy(generator)
    seeded = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in other.synthesis.parameters():
            p.add_(0.3 * p.std(correction=0) * torch.randn(p.shape, generator=seeded))
    return other


def blended(a: MobileGenerator, b: MobileGenerator, share: float) -> MobileGenerator:
    out = copy.deepcopy(a)
    with torch.no_grad():
        for p, q in zip(out.synthesis.parameters(), b.synthesis.parameters(), strict=True):
            p.lerp_(q, share)
    return out


def numbers(tree: Any) -> Iterator[float]:
    if isinstance(tree, dict):
        for value in tree.values():
            yield from numbers(value)
    elif isinstance(tree, float):
        yield tree


def test_entries_are_what_the_measures_give() -> None:
    style, pictures, sources = faces(20, 0, 0.4), faces(12, 1), faces(12, 2)
    scores = make_judge(style).score(pictures, sources)
    a, b = (Grid("")(pil_pictures(x)) for x in (pictures, style))
    assert scores["fid"] == {
        "value": pytest.approx(fid(a, b).value), "n": 12, "n_style": 20, "by": "grid",
    }  # fmt: skip
    assert scores["kid_x1000"]["value"] == pytest.approx(1000 * kid(a, b).mean)
    assert scores["cmmd"]["value"] == pytest.approx(cmmd(a, b).value)
    x, y = pictures / 127.5 - 1, sources / 127.5 - 1
    assert scores["perceptual"]["value"] == pytest.approx(squared(x, y).mean().item(), rel=1e-5)
    assert scores["perceptual"]["by"] == "squares"
    apart = 1 - identity().similarity(x, y)
    assert scores["identity_distance"]["value"] == pytest.approx(apart.mean().item(), abs=1e-6)
    assert scores["identity_distance"]["same"] == pytest.approx(0.1)
    assert list(scores) == [
        *SET_ENTRIES,
        *PAIR_ENTRIES,
        "identity_spread",
        "hair_color",
        "by_skin",
        "by_appearance",
    ]


def test_spread_is_the_mean_over_all_pairs() -> None:
    pictures, sources = faces(5, 1), faces(5, 2)
    entry = make_judge(faces(4, 0)).score(pictures, sources)["identity_spread"]
    for key, img in (("value", pictures), ("of_sources", sources)):
        who = identity().embed(img / 127.5 - 1)
        apart = [1 - float(who[i] @ who[j]) for i in range(5) for j in range(5) if i != j]
        assert entry[key] == pytest.approx(np.mean(apart), abs=1e-5)
    alike = faces(1, 3).expand(5, -1, -1, -1)
    entry = make_judge(faces(4, 0)).score(alike, sources)["identity_spread"]
    assert entry["value"] == pytest.approx(0, abs=1e-5) and entry["of_sources"] > 0.05


def test_skin_is_grouped_by_the_source() -> None:
    tones = [(240, 214, 196)] * 3 + [(190, 140, 100)] * 2 + [(90, 60, 40)]
    sources = [Image.new("RGB", (SIDE_PX, SIDE_PX), tone) for tone in tones]
    pictures = [Image.new("RGB", (SIDE_PX, SIDE_PX), (230, 190, 170)) for _ in tones]
    table = make_judge(faces(4, 0)).score(pictures, sources)["by_skin"]
    assert {name: row["n"] for name, row in table.items()} == {
        "light": 3, "medium": 2, "dark": 1, "all": 6,
    }  # fmt: skip
    drifts = [skin_drift(a, b) for a, b in zip(sources, pictures, strict=True)]
    expected = drift_by_group(drifts, THREE_GROUPS)
    assert table["dark"]["delta_l"] == expected["dark"]["delta_l"] > 30
    assert table["light"]["delta_l"] < 0
    means = [table[name]["identity_distance"] * table[name]["n"] for name in THREE_GROUPS]
    assert sum(means) / 6 == pytest.approx(table["all"]["identity_distance"])


def person(male: float, years: float) -> Image.Image:
    """What `Halves` takes for such a person."""
    image = Image.new("L", (SIDE_PX, SIDE_PX), round(255 * male))
    image.paste(round(255 * years / 60), (0, SIDE_PX // 2, SIDE_PX, SIDE_PX))
    return image.convert("RGB")


def test_people_are_grouped_by_what_their_photos_look_like() -> None:
    before = [(0.1, 30), (0.3, 40), (0.9, 50), (0.9, 6), (0.5, 35)]
    after = [(0.2, 36), (0.7, 42), (0.8, 47), (0.2, 9), (0.9, 35)]
    sources, pictures = ([person(*who) for who in people] for people in (before, after))
    table = make_judge(faces(4, 0)).score(pictures, sources)["by_appearance"]
    assert {name: row["n"] for name, row in table.items()} == {
        "women": 2, "men": 1, "children": 1, "all": 5,
    }  # fmt: skip
    assert (table["women"]["kept"], table["men"]["kept"]) == (0.5, 1.0)
    assert "kept" not in table["children"] and "kept" not in table["all"]
    assert table["women"]["delta_male"] == pytest.approx(0.25, abs=0.01)
    assert table["men"]["delta_male"] == pytest.approx(-0.1, abs=0.01)
    assert table["women"]["years"] == pytest.approx(35, abs=0.6)
    assert table["women"]["delta_years"] == pytest.approx(4, abs=0.3)
    assert table["men"]["delta_years"] == pytest.approx(-3, abs=0.3)
    assert table["all"]["delta_years"] == pytest.approx(8 / 5, abs=0.3)
    a, b = (torch.cat([to_tensor(image) for image in row]) for row in (pictures, sources))
    apart = 1 - identity().similarity(a, b)
    assert table["women"]["identity_distance"] == pytest.approx(float(apart[:2].mean()), abs=1e-5)
    lone = make_judge(faces(4, 0), identity=None).score(pictures, sources)["by_appearance"]
    assert "identity_distance" not in lone["women"]


def test_floats_levels_and_pil_pictures_score_alike() -> None:
    judge, levels, sources = make_judge(faces(6, 0)), faces(9, 1), faces(9, 2)
    whole = list(numbers(judge.score(levels, sources)))
    for pictures, beside in (
        (levels / 127.5 - 1, sources / 127.5 - 1),
        (list(pil_pictures(levels)), list(pil_pictures(sources))),
    ):
        assert list(numbers(judge.score(pictures, beside))) == pytest.approx(whole, rel=1e-4)


def test_scores_do_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    judge, pictures, sources = make_judge(faces(6, 0)), faces(9, 1), faces(9, 2)
    whole = list(numbers(judge.score(pictures, sources)))
    monkeypatch.setattr(module, "BATCH", 2)
    assert list(numbers(judge.score(pictures, sources))) == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_tiny_sets_have_values_or_reasons_never_nan(count: int) -> None:
    scores = make_judge(faces(5, 0)).score(faces(count, 1), faces(count, 2))
    assert all(np.isfinite(value) for value in numbers(scores))
    json.dumps(scores, allow_nan=False)
    for name in ("fid", "kid_x1000", "identity_spread"):
        assert (scores[name]["value"] is None) == (count == 1)
    if count == 1:
        assert "2 pictures or more" in scores["fid"]["why"]
        assert "got 1 and 5" in scores["kid_x1000"]["why"]
    else:
        assert scores["kid_x1000"]["std"] is None  # blocks would be the whole set
    assert scores["identity_distance"]["n"] == count


def test_a_style_set_of_one_picture_has_reasons() -> None:
    scores = make_judge(faces(1, 0)).score(faces(5, 1), faces(5, 2))
    assert scores["fid"]["value"] is None and "got 5 and 1" in scores["fid"]["why"]
    assert scores["cmmd"]["value"] > 0  # biased, so that one picture will do


def test_without_sources_pairs_have_no_value() -> None:
    scores = make_judge(faces(5, 0)).score(faces(4, 1))
    assert scores["fid"]["value"] > 0
    for name in (*PAIR_ENTRIES, "hair_color", "by_skin", "by_appearance"):
        assert scores[name] == {
            "value": None, "why": "there is nothing to compare the pictures with",
        }  # fmt: skip


def test_networks_that_are_missing_say_why() -> None:
    judge = make_judge(
        faces(5, 0),
        clip=None,
        identity=None,
        appearance=None,
        distances={"perceptual": PerceptualDistance("squares", squared)},
        missing={
            "clip": "no CLIP",
            "lpips": "no AlexNet",
            "identity": "no judge",
            "appearance": "no heads",
        },
    )
    scores = judge.score(faces(4, 1), faces(4, 2))
    assert scores["cmmd"] == {"value": None, "why": "no CLIP"}
    assert scores["lpips"] == {"value": None, "why": "no AlexNet"}
    assert scores["identity_distance"] == {"value": None, "why": "no judge"}
    assert scores["by_appearance"] == {"value": None, "why": "no heads"}
    assert scores["perceptual"]["by"] == "squares"  # never under LPIPS's name
    assert "identity_distance" not in scores["by_skin"]["all"]


def test_only_what_was_asked_for_is_measured() -> None:
    judge = make_judge(faces(5, 0), measures=QUICK)
    assert list(judge.score(faces(4, 1), faces(4, 2))) == [
        "kid_x1000", "perceptual", "identity_distance", "identity_spread",
    ]  # fmt: skip
    assert list(judge.score(faces(4, 1), measures=["kid"])) == ["kid_x1000"]
    with pytest.raises(ConfigError, match="without fid"):
        judge.score(faces(4, 1), measures=["fid"])
    with pytest.raises(ConfigError, match="measures of fid"):
        judge.score(faces(4, 1), measures=["fit"])


def test_unusable_pictures_are_named_errors() -> None:
    judge = make_judge(faces(5, 0))
    with pytest.raises(ConfigError, match="got 0"):
        judge.score([])
    with pytest.raises(ConfigError, match="got 4 and 3"):
        judge.score(faces(4, 1), faces(3, 2))
    with pytest.raises(ImageError, match="NaN"):
        judge.score(torch.full((2, 3, SIDE_PX, SIDE_PX), torch.nan), faces(2, 2))
    with pytest.raises(ImageError, match=r"\[N, 3, H, W\]"):
        judge.score(faces(4, 1)[:, :1])
    with pytest.raises(ImageError, match="one size"):
        judge.score([Image.new("RGB", (128, 128)), Image.new("RGB", (130, 130))], faces(2, 2))


def test_g_is_at_no_semantic_distance_from_itself(generator: MobileGenerator) -> None:
    people = sample_people(generator, 3, psi=0.7, side_px=SIDE_PX)
    assert people.sources.float().std() > 10  # pictures of something
    scores = make_judge(faces(5, 0)).score_generator(generator, people)
    assert scores["who"] == "3 samples of G, seeds 200 to 202, psi 0.7"
    assert scores["lpips"]["value"] == scores["perceptual"]["value"] == 0
    assert scores["identity_distance"]["value"] == pytest.approx(0, abs=1e-6)
    assert scores["by_skin"]["all"]["delta_e"] == 0


def test_semantic_distance_grows_from_g_to_the_style(
    generator: MobileGenerator, styled: MobileGenerator
) -> None:
    torch.manual_seed(0)
    tiny = HedVgg16((4, 4, 8, 8, 8)).eval().requires_grad_(False)
    judge = make_judge(
        faces(5, 0),
        distances={"perceptual": PerceptualDistance("tiny", tiny.distance)},
        measures=["perceptual"],
    )
    people = sample_people(generator, 4, psi=0.7, side_px=SIDE_PX)
    values = [
        judge.score_generator(blended(generator, styled, share), people)["perceptual"]["value"]
        for share in (0.0, 0.25, 0.5, 1.0)
    ]
    assert values[0] == 0
    assert values == sorted(values) and values[1] > 0 and values[3] > 2 * values[1]


def test_photos_are_scored_beside_g_and_beside_themselves(
    generator: MobileGenerator, styled: MobileGenerator
) -> None:
    w = sample_people(generator, 3, psi=0.7, side_px=SIDE_PX)
    people = People(w=w.w, sources=w.sources, photos=faces(3, 9), who="3 encoded photos")
    scores = make_judge(faces(5, 0)).score_generator(styled, people)
    portraits = people.drawn_by(styled) / 127.5 - 1
    for name, beside in ((scores, people.sources), (scores["to_photo"], people.photos)):
        expected = squared(portraits, beside / 127.5 - 1).mean().item()  # type: ignore[operator]
        assert name["perceptual"]["value"] == pytest.approx(expected, rel=1e-5)
    assert "fid" not in scores["to_photo"]


def test_metrics_are_saved_and_read(
    generator: MobileGenerator, styled: MobileGenerator, tmp_path: Path
) -> None:
    people = {"samples": sample_people(generator, 3, psi=0.7, side_px=SIDE_PX)}
    judge = make_judge(faces(5, 0))
    metrics = style_metrics(judge, styled, people, style="toy", variant="+SC", with_plain=True)
    assert (metrics["style"], metrics["variant"]) == ("toy", "+SC")
    assert list(metrics["plain"]) == list(SET_ENTRIES)
    assert set(metrics["seconds"]) == {"samples", "plain"}
    path = save_metrics(metrics, tmp_path / "run" / "metrics.json")
    assert read_metrics(path) == json.loads(json.dumps(metrics))
    path.write_text("[]")
    with pytest.raises(ConfigError, match="no metrics"):
        read_metrics(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_metrics(tmp_path / "absent.json")


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Small networks in place of the real ones; LPIPS and CLIP cannot be had. Lists what was asked for."""
    asked: list[str] = []

    def load_judge(name: str, device: Any) -> IdentityJudge:
        asked.append(name)
        if name not in ("auto", "fields"):
            raise DownloadError(f"no {name}")
        return identity()

    def load_perceptual(name: str, device: Any) -> PerceptualDistance:
        asked.append(name)
        if name == "lpips-alex":
            raise DownloadError("no AlexNet here")
        return PerceptualDistance("squares", squared)

    def load_clip(device: Any, *, allow_download: bool) -> Any:
        raise DownloadError(f"no CLIP here, allowed: {allow_download}")

    monkeypatch.setattr(module, "load_judge", load_judge)
    monkeypatch.setattr(module, "load_perceptual", load_perceptual)
    monkeypatch.setattr(module, "load_clip", load_clip)
    monkeypatch.setattr(module, "load_inception", lambda device: Grid("grid"))
    return asked


def test_a_judge_is_loaded_with_what_can_be_had(stand_ins: list[str], tmp_path: Path) -> None:
    for i, picture in enumerate(pil_pictures(faces(5, 0))):
        picture.save(tmp_path / f"{i}.png")
    cache = tmp_path / "style.safetensors"
    judge = StyleJudge.load(tmp_path, cache=cache)
    assert judge.missing == {"clip": "no CLIP here, allowed: False", "lpips": "no AlexNet here"}
    assert cache.is_file()
    scores = judge.score(faces(4, 1), faces(4, 2))
    assert scores["fid"]["n_style"] == 5 and scores["perceptual"]["by"] == "squares"
    assert scores["lpips"]["value"] is None and scores["cmmd"]["value"] is None
    allowed = StyleJudge.load(tmp_path, measures=["cmmd"], allow_download=True)
    assert allowed.missing == {"clip": "no CLIP here, allowed: True"}


def test_another_style_is_judged_by_the_same_networks(stand_ins: list[str], tmp_path: Path) -> None:
    first, second = (list(pil_pictures(faces(count, count))) for count in (5, 6))
    judge = StyleJudge.load(first)
    asked = len(stand_ins)
    other = judge.of_style(second, cache=tmp_path / "style.safetensors")
    assert len(stand_ins) == asked and other.missing == judge.missing
    portraits = faces(4, 1), faces(4, 2)
    assert other.score(*portraits) == StyleJudge.load(second).score(*portraits)
    assert judge.score(*portraits) == StyleJudge.load(first).score(*portraits)
    assert judge.score(*portraits)["fid"] != other.score(*portraits)["fid"]


def test_quick_asks_for_no_other_networks(stand_ins: list[str]) -> None:
    StyleJudge.load(list(pil_pictures(faces(3, 0))), measures=QUICK)
    assert stand_ins == ["auto", "hed-vgg16"]


def test_a_judge_asked_for_by_name_must_be_there(stand_ins: list[str], tmp_path: Path) -> None:
    pictures = list(pil_pictures(faces(3, 0)))
    assert StyleJudge.load(pictures, judge_name="fields").missing.keys() == {"clip", "lpips"}
    with pytest.raises(DownloadError, match="no faceres"):
        StyleJudge.load(pictures, judge_name="faceres")
    with pytest.raises(DatasetError):
        StyleJudge.load(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="measures"):
        StyleJudge.load(pictures, measures=[])
    assert set(QUICK) < set(MEASURES)


def test_a_style_report_has_table_numbers_and_sheet(
    stand_ins: list[str], generator: MobileGenerator, styled: MobileGenerator, tmp_path: Path
) -> None:
    stylizer: Any = SimpleNamespace(
        base=generator,
        generator=styled,
        encoder=lambda photo: generator.w_avg[None] + photo.mean(),
        config=SimpleNamespace(name="toy", title="Toy", psi=0.7),
        device=torch.device("cpu"),
    )
    for i, picture in enumerate(pil_pictures(faces(5, 0))):
        picture.save(tmp_path / f"{i}.png")
    photos = list(pil_pictures(faces(4, 3)))
    out = tmp_path / "report"
    metrics = report.style_report(stylizer, tmp_path, out, count=3, shown=2, photos=photos, limit=2)
    assert read_metrics(out / "metrics.json") == json.loads(json.dumps(metrics))
    assert metrics["photos"]["who"] == "2 encoded photos, psi 0.7"
    text = (out / "report.md").read_text()
    assert text.startswith("# Toy\n") and "| FID (samples of G, to the style set) |" in text
    assert "no AlexNet here" in text and "3 to 5 | grid |" in text
    with Image.open(out / "sheet.jpg") as sheet:
        assert sheet.width > 256
    report.style_report(
        stylizer, tmp_path, out, count=2, perceptual_name="hed-vgg16", judge_name="fields"
    )
    assert "LPIPS (" not in (out / "report.md").read_text()
    with pytest.raises(ConfigError, match="unknown perceptual"):
        report.style_report(stylizer, tmp_path, out, perceptual_name="vgg")


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("psi", (0.0, 1.0)),
        ("strength", (0.0, 1.0)),
        ("refine", (0, 2)),
        ("keep_texture", (0.0, 1.0)),
        ("keep_shape", (0.0, 1.0)),
    ],
)
def test_a_sweep_shows_every_value(
    setting: Any,
    values: tuple[float, float],
    stand_ins: list[str],
    generator: MobileGenerator,
    styled: MobileGenerator,
    tmp_path: Path,
) -> None:
    stylizer: Any = SimpleNamespace(
        base=generator,
        generator=styled,
        encoder=lambda photo: generator.w_avg[None] + photo.mean() + 1,
        config=SimpleNamespace(name="toy", title="Toy", psi=0.7),
        folder=None,
        device=torch.device("cpu"),
    )
    style, photos = (list(pil_pictures(faces(5, seed))) for seed in (0, 3))
    text = sweep_report(stylizer, setting, style, photos, tmp_path, values=values, limit=3, shown=2)
    low, high = (f"{value:g}" for value in values)
    assert text.startswith(f"# Toy by {setting}\n")
    assert f"| {setting} {low} |" in text and f"| {setting} {high} |" in text
    assert "change of L* of the skin" in text and (tmp_path / "report.md").read_text() == text
    first, second = (
        read_metrics(tmp_path / f"{setting}_{value}.json")["photos"] for value in (low, high)
    )
    assert first["perceptual"] != second["perceptual"] and first["who"] == "3 encoded photos"
    if setting == "psi":  # one face for all
        assert first["identity_spread"]["value"] == pytest.approx(0, abs=1e-6)
    if setting == "strength":  # the weights it was given stay as they were
        again = sweep_report(
            stylizer, setting, style, photos, tmp_path, values=values, limit=3, shown=2
        )
        assert again == text
    with Image.open(tmp_path / "sheet.jpg") as sheet:
        assert sheet.height > sheet.width  # a row each: photos, both values
    for wrong in ((0.5, 0.5), (-0.1,), (2000.0,), (0.5,) if setting == "refine" else (3.0,)):
        with pytest.raises(ConfigError, match=setting):
            sweep_report(stylizer, setting, style, photos, tmp_path, values=wrong)


def test_a_sweep_does_without_the_network_of_appearance() -> None:
    row = {"variant": "psi 1", "photos": {"by_appearance": {"value": None, "why": "away"}}}
    assert sweep._looks_table([row]) == []
    group = {"n": 2, "kept": 1.0, "delta_years": 1.0}
    row["photos"] = {"by_appearance": {"all": group, "women": group}}
    lines = sweep._looks_table([row])
    assert "| psi 1 | 100%, +1.0 |" in lines and "by faceres_appearance" in lines[0]


@pytest.mark.parametrize("setting", ["likeness", "hair"])
def test_a_sweep_takes_a_share_of_what_lies_beside_a_style(
    setting: Any,
    stand_ins: list[str],
    generator: MobileGenerator,
    styled: MobileGenerator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card = StyleConfig(
        name="toy", title="Toy", description="", generator=generator.config(), base_sha256="0" * 64,
        likeness=0.4, hair=0.4,
    )  # fmt: skip
    card.save(tmp_path / "config.json")
    drawn_with: list[StyleConfig] = []

    def load(folder: Path, base: MobileGenerator, config: StyleConfig) -> MobileGenerator:
        assert folder == tmp_path and base is generator
        drawn_with.append(config)
        return styled if getattr(config, setting) else generator

    monkeypatch.setattr(sweep, "load_style_generator", load)
    moved: list[Any] = []
    monkeypatch.setattr(MobileGenerator, "to", lambda own, place: moved.append(place) or own)
    stylizer: Any = SimpleNamespace(
        base=generator, generator=styled, encoder=lambda photo: generator.w_avg[None] + photo.mean() + 1,
        config=card, device=torch.device("cpu"), folder=tmp_path,
    )  # fmt: skip
    style, photos = (list(pil_pictures(faces(5, seed))) for seed in (0, 3))
    out = tmp_path / "out"
    text = sweep_report(stylizer, setting, style, photos, out, values=(0, 0.8), limit=3, shown=2)
    assert "The style's own is 0.4." in text
    assert drawn_with == [replace(card, **{setting: value}) for value in (0, 0.8)]
    assert moved == [generator.w_avg.device] * 2, "where codes are, as files are read on the CPU"
    first, second = (
        read_metrics(out / f"{setting}_{value}.json")["photos"] for value in ("0", "0.8")
    )
    assert first["perceptual"] != second["perceptual"]


@pytest.mark.parametrize(("kind", "place"), [("cpu", "cpu"), ("mps", "cpu"), ("cuda", "cuda")])
def test_reports_are_judged_where_comparisons_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, place: str
) -> None:
    class Loaded(Exception):
        pass

    def load(*args: Any, device: torch.device, **options: Any) -> None:
        raise Loaded(device.type)

    monkeypatch.setattr(StyleJudge, "load", load)
    stylizer: Any = SimpleNamespace(device=torch.device(kind))
    with pytest.raises(Loaded, match=place):
        report.style_report(stylizer, tmp_path, tmp_path)
    with pytest.raises(Loaded, match=place):
        sweep_report(stylizer, "psi", tmp_path, tmp_path, tmp_path)


def test_a_sweep_of_something_else_is_refused(tmp_path: Path) -> None:
    stylizer: Any = SimpleNamespace()
    with pytest.raises(
        ConfigError, match="psi, strength, refine, keep_texture, keep_shape, likeness"
    ):
        sweep_report(stylizer, "speed", [], [], tmp_path)  # type: ignore[arg-type]
