"""2ST-UNet, stage 1: 256 px from ImageNet weights.

    python -m pneumojax.main --config=configs/stage1.py --config.data.root=DIR

The method as far as it is known. P: the paper's abstract. A: code that the authors released later.
K: the public Kaggle kernel that this code grew from. I: inferred. See docs/provenance.md.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """Low resolution first: "better and faster network convergence" (P)."""
    config = base.get_config()
    config.name = 'stage1'
    config.image_size = 256  # I: A loads a model named 256_resnet34 into its 512 px stage
    config.batch_size = 16  # K
    config.num_epochs = 80  # K
    config.model.pretrained = 'imagenet'  # P
    config.optimizer.name = 'adam'  # K: for its 256 px
    config.optimizer.learning_rate = 1e-3  # K: where Adam starts at 256 px
    config.optimizer.final_learning_rate = 1e-6  # A: where its cosine schedules for Adam end
    config.averaging.start = config.get_ref('num_epochs') - 13  # K: the last 13 of 80
    return config
