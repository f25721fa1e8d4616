"""Both stages on drawn radiographs: no data, no GPU, a few minutes.

    python -m pneumojax.main --config=configs/demo.py

The images are phantoms (`pneumojax.data.phantoms`) in Kaggle's layout, so the same code runs as on
real data. The network is narrower and the images are smaller than for radiographs. All values are
our own choice for this demo (I). They say nothing about the method on real images.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """Stage 1 at 64 px, stage 2 at 128 px, each evaluated, with a table at the end."""
    config = base.get_config()
    config.name = 'demo'
    config.data.root = 'data/phantoms'
    config.data.phantoms.num_images = 600
    config.data.phantoms.size = 256
    config.data.phantoms.positive_share = 0.3
    config.model.channels = 1
    config.model.width = 16
    config.batch_size = 16
    config.log_every_steps = 10
    config.optimizer.name = 'adam'
    config.optimizer.learning_rate = 3e-3
    config.optimizer.final_learning_rate = 1e-4
    config.sampling.positive_share = (0.5,)
    # Milder than for radiographs, because there is time for a few hundred steps only.
    config.augment.warp = 0.0
    config.augment.shift = config.augment.scale = 0.1
    config.augment.rotate = 10.0
    config.evaluation.compare = True
    config.evaluation.batch_size = 40
    config.evaluation.every_epochs = 2
    config.stages = {
        'stage1': {'image_size': 64, 'num_epochs': 16, 'averaging': {'start': 12}},
        'stage2': {'image_size': 128, 'num_epochs': 10, 'averaging': {'start': 7}},
    }
    return config
