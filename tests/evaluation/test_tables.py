"""Tables show what was measured, by what, and refuse to compare what cannot be compared."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from facestyle.errors import ConfigError
from facestyle.evaluation.tables import comparison_table, measured_on, metrics_table

MACHINE = {"processor": "Abacus 3", "cores": 2}


def row(style: str, variant: str, fid: float, dis: float, n_style: int = 165) -> dict[str, Any]:
    by_set = {"n": 48, "n_style": n_style, "by": "inception-v3 of somewhere"}
    return {
        "style": style,
        "variant": variant,
        "machine": MACHINE,
        "date": "2026-11-22",
        "samples": {
            "who": "48 samples of G",
            "fid": {"value": fid, **by_set},
            "kid_x1000": {"value": fid / 2, "std": 1.5, "block_size": 24, **by_set},
            "cmmd": {"value": None, "why": "CLIP is not | here"},
            "lpips": {"value": None, "why": "no AlexNet"},
            "perceptual": {"value": dis, "n": 48, "by": "hed-vgg16 (uncalibrated)"},
            "identity_distance": {
                "value": dis / 2, "n": 48, "by": "faceres", "same": 0.27, "different": 0.62,
            },
        },
    }  # fmt: skip


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    return [
        row("cartoon", "baseline", 169.54, 0.57),
        row("cartoon", "+SC&PC", 150.24, 0.413),
        row("anime", "baseline", 149.63, 0.648, 174),
        row("anime", "+SC&PC", 99.13, 0.559, 174),
    ]


def test_variants_go_down_and_styles_across(rows: list[dict[str, Any]]) -> None:
    lines = comparison_table(rows, columns=["FID", "Dis."]).splitlines()
    assert lines[:4] == [
        "| variant | cartoon FID | cartoon Dis. | anime FID | anime Dis. |",
        "|---|---|---|---|---|",
        "| baseline | 169.5 | 0.570 | 149.6 | 0.648 |",
        "| +SC&PC | **150.2** | **0.413** | **99.1** | **0.559** |",
    ]


def test_the_papers_layout_has_styles_down(rows: list[dict[str, Any]]) -> None:
    lines = comparison_table(rows, columns=["FID", "Dis."], down="styles").splitlines()
    assert lines[0] == "| style | baseline FID | baseline Dis. | +SC&PC FID | +SC&PC Dis. |"
    assert lines[3] == "| anime | 149.6 | 0.648 | **99.1** | **0.559** |"


def test_beneath_are_networks_counts_machine_and_date(rows: list[dict[str, Any]]) -> None:
    rows[1]["date"] = "2026-11-23"
    text = comparison_table(rows)
    assert (
        "by inception-v3 of somewhere; lower is better. N = 48; style pictures: cartoon 165, anime 174."
        in text
    )
    assert "by hed-vgg16 (uncalibrated); not LPIPS; lower is better. N = 48." in text
    assert "- People: 48 samples of G." in text
    assert text.endswith("Measured on Abacus 3, 2 cores, 2026-11-22 to 2026-11-23.\n")


def test_lpips_is_taken_where_all_have_it_and_named_so(rows: list[dict[str, Any]]) -> None:
    for r in rows:
        r["samples"]["lpips"] = {"value": 0.1, "n": 48, "by": "LPIPS v0.1 (AlexNet)"}
    text = comparison_table(rows, columns=["Dis."])
    assert "| baseline | **0.100** | **0.100** |" in text  # a tie is no win for one
    assert "by LPIPS v0.1 (AlexNet); lower" in text and "not LPIPS" not in text
    rows[0]["samples"]["lpips"] = {"value": None, "why": "no AlexNet"}
    assert "0.570" in comparison_table(rows, columns=["Dis."])


def test_absent_rows_and_values_are_dashes_with_reasons(rows: list[dict[str, Any]]) -> None:
    lines = comparison_table(rows[:3], columns=["FID", "CMMD"]).splitlines()
    assert lines[3] == "| +SC&PC | **150.2** | – | – | – |"
    assert r"- CMMD: –: CLIP is not \| here." in lines
    rows[1]["samples"]["fid"] = {"value": None, "why": "too few"}
    text = comparison_table(rows, columns=["FID"])
    assert "- FID: – (cartoon +SC&PC): too few." in text
    assert "| baseline | 169.5 | 149.6 |" in text  # alone, nothing to win


def test_a_single_variant_is_not_bold(rows: list[dict[str, Any]]) -> None:
    assert "**" not in comparison_table([rows[0], rows[2]])


def test_what_cannot_be_compared_is_refused(rows: list[dict[str, Any]]) -> None:
    def changed(group: str, key: str, value: Any) -> list[dict[str, Any]]:
        other = copy.deepcopy(rows)
        other[1]["samples"][group] = {**other[1]["samples"][group], key: value}
        return other

    with pytest.raises(ConfigError, match=r"cartoon: fid of pictures differ.*\(32, 165\)"):
        comparison_table(changed("fid", "n", 32))
    with pytest.raises(ConfigError, match=r"perceptual was measured by .*another"):
        comparison_table(changed("perceptual", "by", "another"))
    other = copy.deepcopy(rows)
    other[0]["samples"]["who"] = "48 others"
    with pytest.raises(ConfigError, match="people differ among the variants"):
        comparison_table(other)
    with pytest.raises(ConfigError, match="twice"):
        comparison_table([*rows, rows[0]])
    with pytest.raises(ConfigError, match=r"cartoon baseline.*not measured on photos"):
        comparison_table(rows, people="photos")
    with pytest.raises(ConfigError, match="columns of FID"):
        comparison_table(rows, columns=["IS"])
    with pytest.raises(ConfigError, match="0 metrics"):
        comparison_table([])


def test_one_styles_table_names_every_network(rows: list[dict[str, Any]]) -> None:
    metrics = rows[0]
    metrics["photos"] = {
        **copy.deepcopy(metrics["samples"]),
        "who": "20 encoded photos",
        "to_photo": {"perceptual": {"value": 1.25, "n": 20, "by": "hed-vgg16 (uncalibrated)"}},
    }
    metrics["samples"]["by_skin"] = {
        "dark": {"n": 7, "identity_distance": 0.4, "delta_l": 3.21, "delta_e": 5.0, "delta_ita_deg": -1.0},
        "all": {"n": 48, "delta_l": -0.5, "delta_e": 4.0, "delta_ita_deg": 2.0},
    }  # fmt: skip
    metrics["samples"]["by_appearance"] = {
        "women": {
            "n": 21, "identity_distance": 0.41, "kept": 0.952, "delta_male": 0.07, "years": 31.2, "delta_years": -2.5,
        },
        "all": {"n": 48, "delta_male": 0.01, "years": 33.0, "delta_years": 1.0},
    }  # fmt: skip
    metrics["photos"]["by_appearance"] = {"value": None, "why": "no heads"}
    lines = metrics_table(metrics).splitlines()
    assert (
        "| FID (samples of G, to the style set) | 169.5 | 48 to 165 | inception-v3 of somewhere |"
        in lines
    )
    assert (
        "| KID x 1000 (samples of G, to the style set) | 84.8 (± 1.5 over blocks of 24) | 48 to 165 | "
        "inception-v3 of somewhere |" in lines
    )
    assert "| LPIPS (samples of G, semantic distance G(w) to G'(w)) | – | – | no AlexNet |" in lines
    assert (
        "| perceptual distance (not LPIPS) (portrait to its photo) | 1.250 | 20 | hed-vgg16 (uncalibrated) |"
        in lines
    )
    assert (
        "| identity distance (samples of G, semantic distance G(w) to G'(w)) | 0.285 | 48 | "
        "faceres; one person 0.27, two 0.62 |" in lines
    )
    assert "| dark | 7 | 0.400 | +3.2 | 5.0 | -1.0 |" in lines
    assert "| all | 48 | – | -0.5 | 4.0 | +2.0 |" in lines
    assert "| women | 21 | 0.410 | 95% | +0.07 | 31 | -2.5 |" in lines
    assert "| all | 48 | – | – | +0.01 | 33 | +1.0 |" in lines
    assert sum(line.startswith("| who they look like (") for line in lines) == 1
    assert lines[-1] == f"48 samples of G; 20 encoded photos. {measured_on([metrics])}"
