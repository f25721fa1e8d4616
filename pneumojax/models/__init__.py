"""ResNet34, UNet, EfficientNet-Lite0, predictions over flips (TTA), PyTorch weights."""
