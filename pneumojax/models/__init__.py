"""ResNet34, UNet, predictions over flips (TTA), PyTorch weights."""
