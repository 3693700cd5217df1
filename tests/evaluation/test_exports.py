"""The package's public names."""

from __future__ import annotations

import subprocess
import sys

import pytest

import facestyle.evaluation as evaluation


def test_public_names_are_sorted_complete_and_real() -> None:
    assert sorted(evaluation.__all__) == evaluation.__all__
    assert set(evaluation.__all__) == set(evaluation._HOME)
    for name in evaluation.__all__:
        assert getattr(evaluation, name).__name__ == name


def test_unknown_names_are_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        evaluation.nonsense  # noqa: B018


def test_reading_pictures_and_sheets_do_not_load_torch() -> None:
    code = (
        "import sys; from facestyle.evaluation import contact_sheet, skin_tone; "
        "from facestyle.picture_files import read_images; "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
