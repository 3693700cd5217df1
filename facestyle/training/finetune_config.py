"""What a run of finetuning does: steps, rates, weights of the losses."""

from __future__ import annotations

from dataclasses import dataclass

from facestyle.errors import ConfigError
from facestyle.ranges import check_above_0, check_least
from facestyle.seeds import TRAINING_SEEDS, check_seed

__all__ = ["FinetuneConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneConfig:
    """Finetuning on one style. Rates are shares of a tensor's own size, see ``per_tensor_groups``.

    The weights of the losses are the paper's (section 6.1: both lambdas 1, identity 0.1) unless set otherwise.

    Attributes:
        coarse_steps: steps on the preview path.
        coarse_batch: pictures a step and process there.
        coarse_lr: relative step per tensor there, falling to 0 in the second half.
        full_steps: steps through the full-resolution path.
        full_batch: pictures a step and process there.
        full_lr: relative step per tensor there, falling likewise.
        full_px: side at which patches and pairs are compared there; the preview's where it is 0. For styles of fine
            strokes, up to the side of the style pictures.
        early_blocks: first blocks that stay G's, the stem among them, for styles that are all texture: what those
            blocks have of texture are wrinkles.
        late_blocks: blocks behind the preview's that stage ``full`` trains too, for styles that live in fine strokes.
        discriminator: "projected", which needs few pictures, or "stylegan2" with R1.
        discriminator_lr: Adam's rate of the discriminator; 0 for its own: 2e-4 of the projected one, 2e-3 of the other.
        discriminator_width: share of the channels of StyleGAN2's discriminator; the projected one has none to spare.
        adversarial_weight: weight of the adversarial loss.
        full_adversarial: share of that weight in stage ``full``. 0, beside a ``patch_weight``, wipes off the fine
            hatching that a discriminator of few pictures leaves on skin.
        adversarial_ramp: share of stage ``coarse`` in which that weight rises from 0.
        sem_weight: lambda_sem of the paper's eq. 3.
        identity_weight: share of the identity term inside the semantic constraint (paper eq. 1: 0.1).
        color_weight: share of the mean colour difference at 8 px inside the semantic constraint; 0 is the paper.
        sem_finest: finest feature map of the semantic constraint, 2 (stride 8) to 4 (stride 32). 3 lets eyes grow and
            noses vanish.
        mouth_weight: share of the perceptual difference of strides 4 and 8 around the mouth inside the semantic
            constraint, for styles whose faces smile less than people; 0 is the paper.
        eye_scale: the semantic constraint holds to G(w) with its eyes so many times as tall and the square root of that
            as wide (``training.larger_eyes``), for styles whose eyes are larger than people's; 1 is the paper.
        eye_weight: as ``mouth_weight``, around the eyes; it also holds their colours there, pixel by pixel.
        patch_weight: weight of the nearest-patch loss, which draws every part of a portrait towards the nearest like
            part of the style set (``training.nearest_patches``); 0 is the paper.
        patch_pictures: style pictures searched a step.
        patch_tones: share of the style set that the patch loss sees darker and warmer, so that dark skin finds its
            like in a set of light faces instead of being bleached.
        pair_weight: lambda_paired of eq. 3; counts only where pairs are given.
        pair_pixel_weight: share of the mean absolute difference at 64 px inside the paired loss; 0 is the paper.
        pair_texture_weight: share of the difference in texture inside the paired loss, as statistics of features
            without their place (Gatys et al., arXiv:1508.06576); 0 is the paper. Brush strokes lie elsewhere in every
            picture, so a loss that compares place by place smooths them away.
        pair_level: which codes of the pairs.
        pair_batch: pairs a step and process.
        psi_min, psi_max: codes are truncated by a psi drawn from this range.
        ema_half_life_nimg: half-life, in generated images, of the averaged weights; at most half of those that the
            stage has drawn, so that a short stage counts.
        noise_scale: the style's noise planes are G's times this; 0 for smooth surfaces. With ``init`` they are that
            file's.
        noise_share: 0 leaves the noise planes fixed. Above 0 those of the blocks that are trained begin as strokes of
            this share of the spread of what the layer gives (about twice that of what they are added to), and are
            trained too: strokes that lie anywhere need something to follow that is not the face, or they become its
            wrinkles. With ``init`` they begin as that file's, but for blocks that have none there. For the architecture
            "mobile".
        replace_background: put cut-out style pictures (a plain ground) before blurred samples of G, so that the style
            does not learn the plain ground; "auto" does so when the set's borders are plain.
        flip: style pictures are mirrored at random; pairs never are.
        seed: of every random number.
        preview_every: steps between previews, checkpoints and, where ``held_out`` is above 0, scores.
        held_out: faces by which snapshots are scored, and averages of the first with `SHARES` of the last; 0 keeps the
            last.
        held_out_content: what telling people apart counts in the score beside style, see ``selection.HeldOut``.
    """

    coarse_steps: int = 400
    coarse_batch: int = 4
    coarse_lr: float = 1e-3
    full_steps: int = 60
    full_batch: int = 3
    full_lr: float = 5e-4
    full_px: int = 0
    early_blocks: int = 0
    late_blocks: int = 0
    discriminator: str = "projected"
    discriminator_lr: float = 0.0
    discriminator_width: float = 1.0
    adversarial_weight: float = 1.0
    full_adversarial: float = 1.0
    adversarial_ramp: float = 0.0
    sem_weight: float = 1.0
    identity_weight: float = 0.1
    color_weight: float = 0.0
    sem_finest: int = 2
    mouth_weight: float = 0.0
    eye_scale: float = 1.0
    eye_weight: float = 0.0
    patch_weight: float = 0.0
    patch_pictures: int = 12
    patch_tones: float = 0.0
    pair_weight: float = 1.0
    pair_pixel_weight: float = 0.0
    pair_texture_weight: float = 0.0
    pair_level: int = 2
    pair_batch: int = 2
    psi_min: float = 0.5
    psi_max: float = 0.9
    ema_half_life_nimg: int = 100
    noise_scale: float = 1.0
    noise_share: float = 0.0
    replace_background: str = "auto"
    flip: bool = True
    seed: int = 0
    preview_every: int = 50
    held_out: int = 0
    held_out_content: float = 1.0

    def __post_init__(self) -> None:
        check_seed(self.seed, TRAINING_SEEDS)
        for name in (
            "coarse_batch", "full_batch", "pair_batch", "preview_every", "ema_half_life_nimg",
            "patch_pictures",
        ):  # fmt: skip
            check_least(name, getattr(self, name), 1)
        for name in (
            "coarse_steps", "full_steps", "adversarial_weight", "sem_weight", "identity_weight",
            "color_weight", "pair_weight", "pair_pixel_weight", "pair_level", "noise_scale", "noise_share",
            "held_out", "held_out_content", "early_blocks", "late_blocks", "pair_texture_weight",
            "patch_weight", "mouth_weight", "eye_weight", "full_px", "discriminator_lr",
        ):  # fmt: skip
            check_least(name, getattr(self, name), 0)
        for name in ("coarse_lr", "full_lr", "discriminator_width"):
            check_above_0(name, getattr(self, name))
        if not 2 <= self.sem_finest <= 4:
            raise ConfigError(f"sem_finest must be 2, 3 or 4, got {self.sem_finest}")
        if not 1 <= self.eye_scale <= 3:
            raise ConfigError(f"eye_scale must lie in [1, 3], got {self.eye_scale}")
        if self.held_out == 1:
            raise ConfigError("held_out must be 0, or 2 or more faces")
        if not 0 <= self.psi_min <= self.psi_max <= 1.5:
            raise ConfigError(
                f"psi_min and psi_max must be in order in [0, 1.5], got {self.psi_min}, {self.psi_max}"
            )
        for name in ("adversarial_ramp", "full_adversarial", "patch_tones"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if self.discriminator not in ("projected", "stylegan2"):
            raise ConfigError(
                f'discriminator must be "projected" or "stylegan2", got {self.discriminator!r}'
            )
        if self.replace_background not in ("auto", "yes", "no"):
            raise ConfigError(
                f'replace_background must be "auto", "yes" or "no", got {self.replace_background!r}'
            )
