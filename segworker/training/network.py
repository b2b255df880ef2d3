"""The segmentation network: a small U-Net whose first stage works at half resolution.

Input   float32 [N, 1, H, W], grey values normalised to 0..1, H and W multiples of DIVISOR.
Output  float32 [N, 2 or 4, H, W] (planes: see `Segmenter`).

Most arithmetic is done at half resolution or below, because these models run on CPUs
without an accelerator.  Only BatchNorm is used: big images are cut into tiles, and a
normalisation that looks at the tile would make the seams visible.
"""
import torch
import torch.nn as nn
import torch.nn.functional as F

DIVISOR = 32
VOTE_UNIT = 16.0
WIDTHS = (32, 56, 80, 112, 96)


def conv_bn_relu(inputs, outputs, dilation=1):
    """3x3 convolution that keeps the size, BatchNorm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def up(x):
    """Double height and width by repeating pixels (cheap; the next convolution smooths)."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class UNet(nn.Module):
    """Returns [N, 2, H, W]: logits of foreground and distance; with `votes` [N, 4, H, W]: also the way to
    the object's centre, y and x, in units of VOTE_UNIT px."""

    def __init__(self, votes=False, widths=WIDTHS):
        super().__init__()
        a, b, c, d, e = widths
        self.enc1 = nn.Sequential(conv_bn_relu(8, a), conv_bn_relu(a, a))
        self.enc2 = nn.Sequential(conv_bn_relu(a, b), conv_bn_relu(b, b))
        self.enc3 = nn.Sequential(conv_bn_relu(b, c), conv_bn_relu(c, c))
        self.enc4 = nn.Sequential(conv_bn_relu(c, d), conv_bn_relu(d, d))
        # dilation widens the view to about 400 px: the inside of a big, evenly bright
        # spheroid can only be told from empty background by what surrounds it
        self.enc5 = nn.Sequential(conv_bn_relu(d, e), conv_bn_relu(e, e, 2), conv_bn_relu(e, e, 2))
        self.dec4 = conv_bn_relu(d + e, e)
        self.dec3 = nn.Sequential(conv_bn_relu(c + e, c), conv_bn_relu(c, c))
        self.dec2 = nn.Sequential(conv_bn_relu(b + c, b), conv_bn_relu(b, b))
        self.dec1 = nn.Sequential(conv_bn_relu(a + b, a), conv_bn_relu(a, a))
        self.expand = nn.Conv2d(a, 32, 1)
        self.head = nn.Sequential(conv_bn_relu(10, 8), nn.Conv2d(8, 2, 3, padding=1))
        # each half-resolution cell answers for its four pixels
        self.vote = nn.Sequential(conv_bn_relu(a, 48), nn.Conv2d(48, 8, 1)) if votes else None

    def forward(self, x):
        # The square root lifts dim objects beside very bright ones; both views are kept.
        full = torch.cat([x, torch.sqrt(torch.clamp(x, min=1e-4))], 1)
        e1 = self.enc1(F.pixel_unshuffle(full, 2))
        e2 = self.enc2(F.max_pool2d(e1, 2))
        e3 = self.enc3(F.max_pool2d(e2, 2))
        e4 = self.enc4(F.max_pool2d(e3, 2))
        e5 = self.enc5(F.max_pool2d(e4, 2))
        y = self.dec4(torch.cat([e4, up(e5)], 1))
        y = self.dec3(torch.cat([e3, up(y)], 1))
        y = self.dec2(torch.cat([e2, up(y)], 1))
        y = self.dec1(torch.cat([e1, up(y)], 1))
        sharp = self.head(torch.cat([F.pixel_shuffle(self.expand(y), 2), full], 1))
        if self.vote is None:
            return sharp
        return torch.cat([sharp, F.pixel_shuffle(self.vote(y), 2)], 1)


class Segmenter(nn.Module):
    """What is exported: the network with its outputs in the units that the worker reads.

    Output plane 0: probability that the pixel belongs to an object, 0..1.
    Without votes, plane 1: distance to the border of the pixel's object divided by that object's
    largest such distance, 0..1.  With votes the distance only helped to learn, and planes 1 and 2 are: how
    many px further down and to the right the centre of the pixel's object lies.

    enlarge: the network sees the image this many times larger, and its maps are brought back to the image's
    size. Sides must be multiples of DIVISOR * 2 when it is 1.5.
    """

    def __init__(self, net, enlarge=1.0):
        super().__init__()
        self.net, self.enlarge = net, enlarge

    def forward(self, x):
        size = x.shape[-2:]
        if self.enlarge != 1:
            x = F.interpolate(x, scale_factor=self.enlarge, mode="bilinear", align_corners=False)
        y = self.net(x)
        if self.net.vote is None:
            y = torch.sigmoid(y)
        else:
            y = torch.cat([torch.sigmoid(y[:, :1]), y[:, 2:] * (VOTE_UNIT / self.enlarge)], 1)
        if self.enlarge != 1:
            y = F.interpolate(y, size=size, mode="bilinear", align_corners=False)
        return y


def parameter_count(net):
    """Number of trained values."""
    return sum(p.numel() for p in net.parameters())
