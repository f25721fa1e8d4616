"""ResNet34, EfficientNet-Lite0, UNet, predictions over flips (TTA), PyTorch weights."""
