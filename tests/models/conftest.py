"""Tiny networks of foreign code and the checkpoint files that this code would write of them.

The StyleGAN2 here is the oracle of the import tests: its layers carry NVIDIA's attribute names, its arithmetic is the
plain one, a convolution a sample, with zeros put between the pixels.
"""

import contextlib
import pickle
import sys
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

TAPS = torch.outer(*[torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8] * 2)
RESOLUTION, BASE, MOST, WIDTH, DEPTH = 32, 128, 8, 8, 3


def channels(side):
    return min(BASE // side, MOST)


def act(x, gain=2**0.5):
    return F.leaky_relu(x, 0.2) * gain


def cut(x, clamp):
    return x if clamp is None else x.clamp(-clamp, clamp)


def spread(x):
    """Zeros between the pixels."""
    n, c, h, w = x.shape
    out = torch.zeros(n, c, 2 * h, 2 * w)
    out[:, :, ::2, ::2] = x
    return out


def blur(x, pad, gain=1.0):
    taps = (TAPS * gain).repeat(x.shape[1], 1, 1, 1)
    return F.conv2d(F.pad(x, pad), taps, groups=x.shape[1])


class Persistent(nn.Module):
    """A module that pickles as NVIDIA's do: name of the class, its source text, its state."""

    source = "raise AssertionError('source text was executed')"

    def __init__(self, **more):
        super().__init__()
        self._init_args, self._init_kwargs = (), dict(more)

    def __reduce__(self):
        state = super().__reduce__()[2]
        meta = {"type": "class", "version": 6, "module_src": self.source,
                "class_name": type(self).__name__, "state": state}  # fmt: skip
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta,), None


class FullyConnectedLayer(Persistent):
    def __init__(self, before, after, activation="linear", rate=1.0, bias=0.0):
        super().__init__(activation=activation)
        self.activation = activation
        self.weight_gain, self.bias_gain = rate / np.sqrt(before), rate
        self.weight = nn.Parameter(torch.randn(after, before) / rate)
        self.bias = nn.Parameter(torch.full([after], bias) + torch.randn(after))

    def forward(self, x):
        x = x @ (self.weight * float(self.weight_gain)).T + self.bias * self.bias_gain
        return act(x) if self.activation == "lrelu" else x


class SynthesisLayer(Persistent):
    def __init__(self, before, after, side, up=1):
        super().__init__()
        self.up, self.activation, self.conv_clamp = up, "lrelu", 256
        self.register_buffer("resample_filter", TAPS.clone())
        self.affine = FullyConnectedLayer(WIDTH, before, bias=1.0)
        weight = torch.randn(after, before, 3, 3).to(memory_format=torch.channels_last)
        self.weight = nn.Parameter(weight)
        self.register_buffer("noise_const", torch.randn(side, side))
        self.noise_strength = nn.Parameter(torch.randn([]))
        self.bias = nn.Parameter(torch.randn(after))

    def forward(self, x, w):
        rows = []
        for one, style in zip(x, self.affine(w), strict=True):
            weight = self.weight * style[None, :, None, None]
            weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
            if self.up == 2:
                rows.append(F.conv2d(F.pad(spread(one[None]), (2, 1, 2, 1)), weight.flip(2, 3)))
            else:
                rows.append(F.conv2d(one[None], weight, padding=1))
        out = torch.cat(rows)
        if self.up == 2:
            out = blur(out, (1, 1, 1, 1), gain=4)
        out = out + self.noise_const * self.noise_strength
        return cut(act(out + self.bias[:, None, None]), self.conv_clamp)


class ToRGBLayer(Persistent):
    def __init__(self, before):
        super().__init__()
        self.affine = FullyConnectedLayer(WIDTH, before, bias=1.0)
        self.weight = nn.Parameter(torch.randn(3, before, 1, 1))
        self.bias = nn.Parameter(torch.randn(3))
        self.weight_gain, self.conv_clamp = 1 / np.sqrt(before), 256

    def forward(self, x, w):
        style = self.affine(w) * float(self.weight_gain)
        color = torch.einsum("nchw,oc,nc->nohw", x, self.weight[:, :, 0, 0], style)
        return cut(color + self.bias[:, None, None], self.conv_clamp)


class SynthesisBlock(Persistent):
    def __init__(self, side):
        super().__init__()
        self.register_buffer("resample_filter", TAPS.clone())
        after = channels(side)
        if side == 4:
            self.const = nn.Parameter(torch.randn(after, 4, 4))
        else:
            self.conv0 = SynthesisLayer(channels(side // 2), after, side, up=2)
        self.conv1 = SynthesisLayer(after, after, side)
        self.torgb = ToRGBLayer(after)


class SynthesisNetwork(Persistent):
    def __init__(self):
        super().__init__()
        self.block_resolutions = [4 << i for i in range(RESOLUTION.bit_length() - 2)]
        for side in self.block_resolutions:
            setattr(self, f"b{side}", SynthesisBlock(side))

    def forward(self, ws):
        row, img = 0, None
        x = self.b4.const.expand(len(ws), -1, -1, -1)
        for side in self.block_resolutions:
            block = getattr(self, f"b{side}")
            if side > 4:
                x = block.conv0(x, ws[:, row])
                row += 1
            x = block.conv1(x, ws[:, row])
            row += 1
            color = block.torgb(x, ws[:, row])
            img = color if img is None else blur(spread(img), (2, 1, 2, 1), gain=4) + color
        return img


class MappingNetwork(Persistent):
    def __init__(self, rate=0.01):
        super().__init__()
        for i in range(DEPTH):
            setattr(self, f"fc{i}", FullyConnectedLayer(WIDTH, WIDTH, "lrelu", rate))
        self.register_buffer("w_avg", torch.randn(WIDTH))

    def forward(self, z):
        x = z / (z.square().mean(1, keepdim=True) + 1e-8).sqrt()
        for i in range(DEPTH):
            x = getattr(self, f"fc{i}")(x)
        return x


class Generator(Persistent):
    def __init__(self):
        super().__init__(z_dim=WIDTH, c_dim=0)
        self.synthesis = SynthesisNetwork()
        self.mapping = MappingNetwork()
        self.num_ws = 2 * len(self.synthesis.block_resolutions)

    def forward(self, z):
        return self.synthesis(self.mapping(z)[:, None].repeat(1, self.num_ws, 1))


class Conv2dLayer(Persistent):
    def __init__(self, before, after, size, bias=True, down=1):
        super().__init__()
        self.activation, self.down, self.padding = "lrelu" if bias else "linear", down, size // 2
        self.register_buffer("resample_filter", TAPS.clone())
        self.weight_gain = 1 / np.sqrt(before * size**2)
        self.weight = nn.Parameter(torch.randn(after, before, size, size))
        self.bias = nn.Parameter(torch.randn(after)) if bias else None

    def forward(self, x):
        weight = self.weight * float(self.weight_gain)
        if self.down == 2:
            around = self.padding + 1
            x = F.conv2d(blur(x, (around,) * 4), weight)[:, :, ::2, ::2]
        else:
            x = F.conv2d(x, weight, padding=self.padding)
        return x if self.bias is None else act(x + self.bias[:, None, None])


class DiscriminatorBlock(Persistent):
    def __init__(self, side):
        super().__init__()
        here, next_ = channels(side), channels(side // 2)
        self.register_buffer("resample_filter", TAPS.clone())
        if side == RESOLUTION:
            self.fromrgb = Conv2dLayer(3, here, 1)
        self.conv0 = Conv2dLayer(here, here, 3)
        self.conv1 = Conv2dLayer(here, next_, 3, down=2)
        self.skip = Conv2dLayer(here, next_, 1, bias=False, down=2)


class DiscriminatorEpilogue(Persistent):
    def __init__(self):
        super().__init__()
        self.conv = Conv2dLayer(MOST + 1, MOST, 3)
        self.fc = FullyConnectedLayer(MOST * 16, MOST, "lrelu")
        self.out = FullyConnectedLayer(MOST, 1)


class Discriminator(Persistent):
    def __init__(self):
        super().__init__(c_dim=0)
        for side in (32, 16, 8):
            setattr(self, f"b{side}", DiscriminatorBlock(side))
        self.b4 = DiscriminatorEpilogue()

    def forward(self, img):
        x = self.b32.fromrgb(img)
        for block in (self.b32, self.b16, self.b8):
            x = (block.conv1(block.conv0(x)) + block.skip(x)) / 2**0.5
        deviation = (x.var(0, unbiased=False) + 1e-8).sqrt().mean()  # a batch of up to 4: one group
        x = torch.cat([x, deviation.expand(len(x), 1, 4, 4)], 1)
        return self.b4.out(self.b4.fc(self.b4.conv(x).flatten(1)))


@contextlib.contextmanager
def nvidia_modules():
    """The modules that the files name, for as long as one is written; readers must do without them."""
    persistence = types.ModuleType("torch_utils.persistence")
    util = types.ModuleType("dnnlib.util")

    def _reconstruct_persistent_obj(meta):
        exec(meta["module_src"], {})

    class EasyDict(dict):
        pass

    for module, thing in ((persistence, _reconstruct_persistent_obj), (util, EasyDict)):
        thing.__module__, thing.__qualname__ = module.__name__, thing.__name__
        setattr(module, thing.__name__, thing)
    made = {"torch_utils": types.ModuleType("torch_utils"), "torch_utils.persistence": persistence,
            "dnnlib": types.ModuleType("dnnlib"), "dnnlib.util": util}  # fmt: skip
    sys.modules.update(made)
    try:
        yield util.EasyDict
    finally:
        for name in made:
            del sys.modules[name]


def nvidia_pickle(content, protocol):
    """Bytes of a pickle in which ``content(EasyDict)`` may name NVIDIA's modules."""
    with nvidia_modules() as easy_dict:
        return pickle.dumps(content(easy_dict), protocol=protocol)


def as_rosinality(state):
    """A ``g_ema`` of NVIDIA's tensors, by the published table of names."""
    named = {}

    def conv(new, old, styled):
        named[f"{new}.conv.weight"] = state[f"{old}.weight"][None]
        for part in ("weight", "bias"):
            named[f"{new}.conv.modulation.{part}"] = state[f"{old}.affine.{part}"]
        if styled:
            named[f"{new}.activate.bias"] = state[f"{old}.bias"]
            named[f"{new}.noise.weight"] = state[f"{old}.noise_strength"][None]
        else:
            named[f"{new}.bias"] = state[f"{old}.bias"].reshape(1, 3, 1, 1)

    for k in range(DEPTH):
        for part in ("weight", "bias"):
            named[f"style.{k + 1}.{part}"] = state[f"mapping.fc{k}.{part}"]
    named["input.input"] = state["synthesis.b4.const"][None]
    conv("conv1", "synthesis.b4.conv1", True)
    conv("to_rgb1", "synthesis.b4.torgb", False)
    named["noises.noise_0"] = state["synthesis.b4.conv1.noise_const"][None, None]
    for i, side in enumerate((8, 16, 32)):
        for j in (0, 1):
            conv(f"convs.{2 * i + j}", f"synthesis.b{side}.conv{j}", True)
            plane = state[f"synthesis.b{side}.conv{j}.noise_const"]
            named[f"noises.noise_{2 * i + 1 + j}"] = plane[None, None]
        conv(f"to_rgbs.{i}", f"synthesis.b{side}.torgb", False)
        named[f"convs.{2 * i}.conv.blur.kernel"] = TAPS * 4
        named[f"to_rgbs.{i}.upsample.kernel"] = TAPS * 4
    return named


def as_rosinality_critic(state):
    """A ``d`` of NVIDIA's tensors, by the published table of names."""
    named = {
        "convs.0.0.weight": state["b32.fromrgb.weight"],
        "convs.0.1.bias": state["b32.fromrgb.bias"],
        "final_conv.0.weight": state["b4.conv.weight"],
        "final_conv.1.bias": state["b4.conv.bias"],
    }
    for j, side in enumerate((32, 16, 8), start=1):
        named[f"convs.{j}.conv1.0.weight"] = state[f"b{side}.conv0.weight"]
        named[f"convs.{j}.conv1.1.bias"] = state[f"b{side}.conv0.bias"]
        named[f"convs.{j}.conv2.0.kernel"] = TAPS
        named[f"convs.{j}.conv2.1.weight"] = state[f"b{side}.conv1.weight"]
        named[f"convs.{j}.conv2.2.bias"] = state[f"b{side}.conv1.bias"]
        named[f"convs.{j}.skip.0.kernel"] = TAPS
        named[f"convs.{j}.skip.1.weight"] = state[f"b{side}.skip.weight"]
    for new, old in ((0, "fc"), (1, "out")):
        for part in ("weight", "bias"):
            named[f"final_linear.{new}.{part}"] = state[f"b4.{old}.{part}"]
    return named


@pytest.fixture(scope="session")
def foreign():
    """What the import tests need of the foreign code."""
    torch.manual_seed(0)
    generator = Generator().eval().requires_grad_(False)
    critic = Discriminator().eval().requires_grad_(False)
    g_state, d_state = generator.state_dict(), critic.state_dict()
    return types.SimpleNamespace(
        generator=generator, critic=critic, Generator=Generator, MappingNetwork=MappingNetwork,
        Persistent=Persistent, pickle=nvidia_pickle, modules=nvidia_modules,
        g_ema=as_rosinality(g_state), d=as_rosinality_critic(d_state),
        z=torch.randn(2, WIDTH), img=torch.randn(3, 3, 32, 32),
    )  # fmt: skip
