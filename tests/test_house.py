"""The project's own files agree with each other."""

import re
from pathlib import Path

import pytest

from facestyle.bench import describe

ROOT = Path(__file__).parents[1]


def project_table():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no TOML reader")
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_requirements_are_the_packages_dependencies():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    requirements = [line for line in lines if line and not line.startswith("#")]
    assert requirements == project_table()["dependencies"]


def test_a_space_takes_what_app_comparison_and_training_take():
    project = project_table()
    extras = project["optional-dependencies"]
    lines = (ROOT / "space/requirements.txt").read_text().splitlines()
    requirements = [line for line in lines if not line.startswith("#")]
    wanted = {*project["dependencies"], *extras["eval"], *extras["train"]}
    assert sorted(requirements) == sorted(wanted)


def test_the_notice_names_every_pinned_package():
    notice = (ROOT / "NOTICE").read_text()
    pinned = []
    for path in (ROOT / "facestyle").rglob("*.py"):
        pattern = r'\bPackage\(\s*registry="\w+",\s*name="([^"]+)",\s*version="([^"]+)"'
        pinned += re.findall(pattern, path.read_text())
    assert ("random-face", "2021.7.21.1") in pinned
    assert [
        f"{name} {version}" for name, version in pinned if f"{name} {version}" not in notice
    ] == []


def test_the_notice_names_every_hub_repository_that_is_fetched():
    notice = (ROOT / "NOTICE").read_text()
    named = set()
    for path in (ROOT / "facestyle").rglob("*.py"):
        named |= set(
            re.findall(r'"((?:openai|CompVis|runwayml|stabilityai)/[\w.-]+)"', path.read_text())
        )
    assert {"openai/clip-vit-large-patch14", "openai/clip-vit-large-patch14-336"} <= named
    assert [name for name in sorted(named) if f"{name}." not in notice] == []
    assert "InceptionResnetV1" in notice and "AlexNet" in notice


def test_the_package_names_the_licences_of_all_its_weights():
    named = {part.lower() for part in project_table()["license"].split(" AND ")}
    weights = [row["license"] for row in describe()["weights"].values()]
    assert {"apache-2.0", "mit"} <= named
    for license in weights:
        research = "research" in license
        spdx = "licenseref-research-only" if research else license.lower().split(" ")[0]
        assert spdx in named, license


def test_the_changelog_has_the_current_version():
    assert f"## [{project_table()['version']}]" in (ROOT / "CHANGELOG.md").read_text()


def test_make_test_is_what_ci_runs():
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
    assert "make test" in (ROOT / ".ci" / "run").read_text()
