# SPDX-License-Identifier: Apache-2.0
"""The DNL authors' segmentor in PyTorch, written from its published description (yinmh17/DNL-Semantic-Segmentation).

Only for tests/reference/trajectories.py. Module names are those of the published weight files. That this is the same
function as the authors' code is checked on their golden outputs before anything else is computed with it.
"""

import torch
import torch.nn.functional as F
from torch import nn

BLOCKS = (3, 4, 23, 3)
# Class weights of both losses on Cityscapes.
CLASS_WEIGHTS = (
    0.8373, 0.9180, 0.8660, 1.0345, 1.0166, 0.9969, 0.9754, 1.0489, 0.8786, 1.0023,
    0.9539, 0.9843, 1.1116, 0.9037, 1.0865, 1.0955, 1.0865, 1.1529, 1.0507,
)  # fmt: skip


def conv(inside: int, outside: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """Convolution without bias that keeps the size at stride 1."""
    padding = dilation * (kernel // 2)
    return nn.Conv2d(inside, outside, kernel, stride, padding, dilation, bias=False)


def norm_relu(width: int) -> nn.Sequential:
    """Batch norm and ReLU, with the norm at index 0."""
    return nn.Sequential(nn.BatchNorm2d(width), nn.ReLU())


class Bottleneck(nn.Module):
    """1x1, 3x3 with stride and dilation, 1x1; the shortcut projects where stride or width change."""

    def __init__(self, inside: int, width: int, stride: int, dilation: int, project: bool):
        super().__init__()
        self.conv1, self.bn1 = conv(inside, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3, stride, dilation), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = conv(width, 4 * width, 1), nn.BatchNorm2d(4 * width)
        self.downsample = None
        if project:
            self.downsample = nn.Sequential(conv(inside, 4 * width, 1, stride), nn.BatchNorm2d(4 * width))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Stem(nn.Module):
    """Three 3x3 convolutions, 64-64-128, and a max-pool that rounds sizes up."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = conv(3, 64, 3, stride=2), nn.BatchNorm2d(64)
        self.conv2, self.bn2 = conv(64, 64, 3), nn.BatchNorm2d(64)
        self.conv3, self.bn3 = conv(64, 128, 3), nn.BatchNorm2d(128)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.relu(self.bn3(self.conv3(x)))
        return F.max_pool2d(x, 3, stride=2, padding=1, ceil_mode=True)


class Backbone(nn.Module):
    """ResNet-101 at output stride 8; the first block of a dilated stage has half its dilation."""

    def __init__(self):
        super().__init__()
        self.prefix = Stem()
        inside = 128
        for stage, (count, stride, dilation) in enumerate(zip(BLOCKS, (1, 2, 1, 1), (1, 1, 2, 4), strict=True)):
            width = 64 * 2**stage
            blocks = []
            for i in range(count):
                first = i == 0
                spread = max(1, dilation // 2) if first else dilation
                blocks.append(Bottleneck(inside, width, stride if first else 1, spread, project=first))
                inside = 4 * width
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))

    def forward(self, x):
        x = self.layer2(self.layer1(self.prefix(x)))
        c4 = self.layer3(x)
        return c4, self.layer4(c4)


class Block(nn.Module):
    """Disentangled non-local block: gated pairwise term, ungated unary term, one value, no output convolution.

    Args:
        whiten: `channel`: each channel of queries and keys loses its mean over the positions; `ln_nostd`: all of them
            lose the one mean over channels and positions.
        temperature: divides the logits, after the root of the width; None: neither.
    """

    def __init__(self, width: int, whiten: str, temperature: float | None):
        super().__init__()
        self.whiten, self.temperature = whiten, temperature
        self.gamma = nn.Parameter(torch.zeros(1))
        self.conv_query, self.conv_key = nn.Conv2d(width, width // 2, 1), nn.Conv2d(width, width // 2, 1)
        self.conv_value, self.conv_mask = nn.Conv2d(width, width, 1, bias=False), nn.Conv2d(width, 1, 1)

    def forward(self, x):
        dims = {"channel": 2, "ln_nostd": (1, 2)}[self.whiten]
        query, key = self.conv_query(x).flatten(2), self.conv_key(x).flatten(2)  # [B, C', N]
        query = query - query.mean(dims, keepdim=True)
        key = key - key.mean(dims, keepdim=True)
        logits = query.transpose(1, 2) @ key  # [B, N, N]
        if self.temperature is not None:
            logits = logits / query.shape[1] ** 0.5 / self.temperature
        value = self.conv_value(x).flatten(2)  # [B, C, N]
        pairwise = value @ logits.softmax(-1).transpose(1, 2)
        unary = value @ self.conv_mask(x).flatten(2).softmax(-1).transpose(1, 2)  # [B, C, 1]
        return x + (self.gamma * pairwise + unary).view_as(x)


class Head(nn.Module):
    """C5 to logits: convolution, block, convolution, joined with C5, convolution, classifier."""

    def __init__(self, classes: int, whiten: str, temperature: float | None):
        super().__init__()
        self.conva = nn.Sequential(conv(2048, 512, 3), norm_relu(512))
        self.ctb = Block(512, whiten, temperature)
        self.convb = nn.Sequential(conv(512, 512, 3), norm_relu(512))
        classifier = nn.Conv2d(512, classes, 1)
        self.bottleneck = nn.Sequential(conv(2560, 512, 3), norm_relu(512), nn.Dropout2d(0.0), classifier)

    def forward(self, x):
        return self.bottleneck(torch.cat([x, self.convb(self.ctb(self.conva(x)))], 1))


class ConvNorm(nn.Module):
    """First layer of the auxiliary head, under its published names."""

    def __init__(self, inside: int, outside: int):
        super().__init__()
        self.conv, self.bn_relu = conv(inside, outside, 3), norm_relu(outside)

    def forward(self, x):
        return self.bn_relu(self.conv(x))


class OfficialDNL(nn.Module):
    """Image `[B, 3, H, W]` to main and auxiliary logits `[B, K, H, W]`; no dropout."""

    def __init__(self, classes: int, whiten: str, temperature: float | None):
        super().__init__()
        self.backbone = Backbone()
        self.nlm = Head(classes, whiten, temperature)
        self.dsn = nn.Sequential(ConvNorm(1024, 512), nn.Dropout2d(0.0), nn.Conv2d(512, classes, 1))

    def forward(self, x):
        c4, c5 = self.backbone(x)
        size = x.shape[2:]
        return tuple(F.interpolate(y, size, mode="bilinear", align_corners=True) for y in (self.nlm(c5), self.dsn(c4)))


def hard_pixel_loss(logits, label, weight, least: int, threshold: float = 0.7):
    """OHEM: weighted cross entropy, mean over the pixels whose own class has a probability below the threshold.

    The threshold rises until `least` pixels of the batch are below it. The mean is over pixels, not over weights.
    """
    labelled = (label != 255).flatten()
    losses = F.cross_entropy(logits, label, weight, ignore_index=255, reduction="none").flatten()[labelled]
    inside = label.where(label != 255, 0).unsqueeze(1)
    probability = logits.softmax(1).gather(1, inside).flatten()[labelled].detach()
    threshold = max(threshold, float(probability.sort().values[min(least, probability.numel() - 1)]))
    return losses[probability < threshold].mean()


def losses(outputs, label, least: int):
    """Main and weighted auxiliary loss of one batch."""
    main, auxiliary = outputs
    weight = torch.tensor(CLASS_WEIGHTS, dtype=main.dtype)
    plain = F.cross_entropy(auxiliary, label, weight, ignore_index=255)
    return hard_pixel_loss(main, label, weight, least), 0.4 * plain
