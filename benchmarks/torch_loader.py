"""What feeding PyTorch takes: a DataLoader whose workers read, decode and augment.

albumentations' releases since 2.0 ask for opencv-python-headless beside the opencv-python here:
`pip install --no-deps albumentations albucore`, then what its import names.
"""

import os

import cv2
import numpy as np
import torch

from benchmarks import torch_augment
from configs import base
from pneumojax.data.datasets import example as example_lib


class Images(torch.utils.data.Dataset):
    """Images and masks [1, S, S] uint8, each epoch `repeats` times over all of them.

    Args:
      source: `examples`, decoded and shrunk each time, or `Records`.
      size: S, pixels.
      augment: whether by `configs/base.py`'s list, on the CPU.
    """

    def __init__(self, source, size: int, augment: bool, repeats: int = 1):
        self.source, self.size, self.repeats = source, size, repeats
        self.augment = augment
        self.transform = None

    def __len__(self):
        return len(self.source) * self.repeats

    def __getitem__(self, index):
        if self.augment and self.transform is None:  # in the worker: it need not travel there
            config = base.get_config()
            config.image_size = self.size
            cv2.setNumThreads(0)  # as users of DataLoader are told: the workers share the cores
            self.transform = torch_augment.make_augment(config)
        item = self.source[index % len(self.source)]
        if isinstance(item, example_lib.Example):
            image, mask = example_lib.load(item)
            size = (self.size, self.size)
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            mask = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
        else:
            image, mask = item
        if self.augment:
            image, mask = self.transform.call(np.ascontiguousarray(image), mask)
        return torch.tensor(image[None]), torch.tensor(mask[None])


def ways(examples, cache, size: int):
    """(what the workers do, their data set) for three ways of feeding."""
    name = torch_augment.make_augment(base.get_config()).name
    repeats = max(1, 1000 // len(cache))
    return (
        (f'from DICOM, {name}', Images(examples, size, augment=True)),
        (f'from records, {name}', Images(cache, size, augment=True, repeats=repeats)),
        ('from records, nothing else', Images(cache, size, augment=False, repeats=repeats)),
    )


def make_loader(dataset, batch_size: int, workers: int) -> torch.utils.data.DataLoader:
    """Shuffled batches from worker processes."""
    os.environ.setdefault('NO_ALBUMENTATIONS_UPDATE', '1')  # the workers inherit it
    return torch.utils.data.DataLoader(
        dataset, batch_size, shuffle=True, num_workers=workers, persistent_workers=True,
        multiprocessing_context='forkserver',
    )  # fmt: skip
