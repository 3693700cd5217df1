"""StyleID's attention (arXiv:2312.09008): the photo's queries on the style's keys and values."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from facestyle.errors import CheckpointError, ConfigError

__all__ = ["Features", "StyleInjection", "injected_layers", "layer_names"]

Features = dict[tuple[str, int], tuple[Tensor, Tensor]]
"""Keys and values by layer and time, each [1, heads, tokens, width of a head]."""


def layer_names(layers: Sequence[int]) -> list[str]:
    """Names of the processors of decoder self-attentions, counted from 0 as the authors count them; 0 to 2 have none.

    Raises:
        ConfigError: there are no such layers in any Stable Diffusion.
    """
    if not layers or not all(3 <= layer <= 11 for layer in layers):
        raise ConfigError(
            f"layers are from 3 to 11, where the decoder has self-attentions; got {list(layers)}"
        )
    return [
        f"up_blocks.{n // 3}.attentions.{n % 3}.transformer_blocks.0.attn1.processor"
        for n in layers
    ]


def injected_layers(unet: Any, layers: Sequence[int]) -> list[str]:
    """The same, of layers that a UNet has.

    Raises:
        ConfigError: there are no such layers in any Stable Diffusion.
        CheckpointError: not in this UNet.
    """
    names = layer_names(layers)
    if missing := [name for name in names if name not in unet.attn_processors]:
        raise CheckpointError(
            f"the UNet is not built like Stable Diffusion's: it has no {missing[0]}",
            missing=missing,
        )
    return names


class StyleInjection:
    """What the chosen attentions of a UNet do while it is ``installed``, by ``mode``.

    - "off": what they always do.
    - "queries", "style": the same, and keep the photo's queries, or the style's keys and values, of time ``time``.
    - "replay": of a batch (photo, style, result) the first two pass as always; the result gets their features.
    - "stored": results get the features that were kept.

    Args:
        gamma: share of the photo's queries; the rest are the result's own.
        tau: what the logits are multiplied with.

    Attributes:
        mode: see above.
        time: of the latents that are passed through the UNet.
        queries: kept of the photo, by layer and time: [1, heads, tokens, width of a head].
        style: keys and values kept of the style, likewise.
    """

    def __init__(self, gamma: float, tau: float) -> None:
        self.gamma, self.tau = gamma, tau
        self.mode = "off"
        self.time = 0
        self.queries: dict[tuple[str, int], Tensor] = {}
        self.style: Features = {}

    @contextlib.contextmanager
    def installed(self, unet: Any, layers: Sequence[int]) -> Iterator[None]:
        """A context in which these layers of the UNet do as ``mode`` says.

        Raises:
            ConfigError, CheckpointError: see :func:`injected_layers`.
        """
        names = injected_layers(unet, layers)
        before = dict(unet.attn_processors)
        changed = {name: _Processor(self, name, before[name]) for name in names}
        unet.set_attn_processor(before | changed)
        try:
            yield
        finally:
            unet.set_attn_processor(before)

    def attend(self, layer: str, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The attention's result [B, heads, tokens, width] from its queries, keys and values."""
        key = layer, self.time
        if self.mode == "queries":
            self.queries[key] = q
        elif self.mode == "style":
            self.style[key] = k, v
        elif self.mode == "stored":
            return self._inject(self.queries[key], *self.style[key], q)
        elif self.mode == "replay":
            plain = F.scaled_dot_product_attention(q[:2], k[:2], v[:2])
            return torch.cat([plain, self._inject(q[:1], k[1:2], v[1:2], q[2:])])
        return F.scaled_dot_product_attention(q, k, v)

    def _inject(self, photo_q: Tensor, style_k: Tensor, style_v: Tensor, own_q: Tensor) -> Tensor:
        """``softmax(tau * (gamma * Q_c + (1 - gamma) * Q_cs) K_s^T / sqrt(d)) V_s``, by its three parts."""
        q = self.tau * torch.lerp(own_q, photo_q, self.gamma)
        return F.scaled_dot_product_attention(q, style_k, style_v)


class _Processor:
    """One layer's attention processor, as diffusers calls it."""

    def __init__(self, shared: StyleInjection, layer: str, plain: Any) -> None:
        self.shared, self.layer, self.plain = shared, layer, plain

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        if self.shared.mode == "off":
            out: Tensor = self.plain(
                attn, hidden_states, encoder_hidden_states, attention_mask, temb
            )
            return out
        q, k, v = (
            project(hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        mixed = self.shared.attend(self.layer, q, k, v).transpose(1, 2).flatten(2)
        result: Tensor = attn.to_out[1](attn.to_out[0](mixed))
        return result
