"""The same network in PyTorch: what a user would otherwise pick, or its layers by hand.

segmentation_models_pytorch where it can be imported. The network by hand, for other widths and
where it cannot, has its layers, its names and its order of operations, so a state dict of the one
fits the other.
"""

import sys

import torch
from torch import nn
from torch.nn import functional

DECODER_SHARES = (4, 2, 1, 0.5, 0.25)  # of the width


def make_unet(width: int = 64, channels: int = 3, stage_sizes=(3, 4, 6, 3)) -> nn.Module:
    """A ResNet34-UNet with random weights: images [B, C, H, W] (multiples of 32) to logits.

    smp's own where it can be imported and can be of this width, else the one below.
    """
    if width == 64 and tuple(stage_sizes) == (3, 4, 6, 3):
        smp = import_smp()
        if smp is not None:
            return smp.Unet('resnet34', encoder_weights=None, in_channels=channels, classes=1)
    return UNet(width, channels, stage_sizes)


def import_smp():
    """The package, or None. It imports torchvision, of which it uses no compiled operator.

    Where those do not fit this build of torch, two of them are undeclared and the import fails;
    declaring them is enough.
    """
    try:
        import segmentation_models_pytorch as smp
    except ImportError:
        return None
    except RuntimeError:
        for module in [m for m in sys.modules if m.split('.')[0] in _HALF_IMPORTED]:
            del sys.modules[module]
        library = torch.library.Library('torchvision', 'FRAGMENT')
        for operator in ('nms', 'qnms'):
            library.define(f'{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
        _declared.append(library)  # its declarations go with it
        try:
            import segmentation_models_pytorch as smp
        except (ImportError, RuntimeError):
            return None
    return smp


_HALF_IMPORTED = ('torchvision', 'timm', 'segmentation_models_pytorch')
_declared = []


def origin(network: nn.Module) -> str:
    """Whose layers these are, for a table."""
    return 'layers by hand' if isinstance(network, UNet) else 'segmentation_models_pytorch'


def convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """Padded by half the kernel, without a bias."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2015)."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = convolution(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = convolution(outputs, outputs), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet34(nn.Module):
    """Five feature maps of strides 2 to 32."""

    def __init__(self, width: int, channels: int, stage_sizes):
        super().__init__()
        self.conv1, self.bn1 = convolution(channels, width, 7, 2), nn.BatchNorm2d(width)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        inputs = width
        for stage, blocks in enumerate(stage_sizes):
            outputs = width * 2**stage
            layers = []
            for block in range(blocks):
                layers.append(BasicBlock(inputs, outputs, 2 if stage and not block else 1))
                inputs = outputs
            setattr(self, f'layer{stage + 1}', nn.Sequential(*layers))

    def forward(self, x):
        features = [self.relu(self.bn1(self.conv1(x)))]
        x = self.maxpool(features[0])
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            features.append(x)
        return features


class DecoderBlock(nn.Module):
    """Upsample, join the skip, then convolution-BatchNorm-ReLU twice."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1, self.conv2 = (
            nn.Sequential(convolution(i, outputs), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
            for i in (inputs, outputs)
        )

    def forward(self, x, skip=None):
        x = functional.interpolate(x, scale_factor=2.0, mode='nearest')
        if skip is not None:
            x = torch.cat([x, skip], dim=1)
        return self.conv2(self.conv1(x))


class Decoder(nn.Module):
    """Five blocks, from the deepest feature map back to the input's size."""

    def __init__(self, width: int):
        super().__init__()
        inputs, blocks = width * 8, []
        for share, skip in zip(DECODER_SHARES, (4, 2, 1, 1, 0), strict=True):
            outputs = max(1, int(width * share))
            blocks.append(DecoderBlock(inputs + skip * width, outputs))
            inputs = outputs
        self.blocks = nn.ModuleList(blocks)

    def forward(self, features):
        x, *skips = reversed(features)
        for block, skip in zip(self.blocks, [*skips, None], strict=True):
            x = block(x, skip)
        return x


class UNet(nn.Module):
    """The whole network, with smp's names."""

    def __init__(self, width: int = 64, channels: int = 3, stage_sizes=(3, 4, 6, 3)):
        super().__init__()
        self.encoder = ResNet34(width, channels, stage_sizes)
        self.decoder = Decoder(width)
        self.segmentation_head = nn.Sequential(
            nn.Conv2d(max(1, int(width * DECODER_SHARES[-1])), 1, 3, padding=1)
        )

    def forward(self, x):
        return self.segmentation_head(self.decoder(self.encoder(x)))
