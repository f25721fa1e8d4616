"""2ST-UNet, stage 2: continues from all of stage 1's weights at 512 px.

    python -m pneumojax.main --config=configs/stage2.py --config.data.root=DIR

The method as far as it is known. P: the paper's abstract. A: code that the authors released later.
K: the public Kaggle kernel that this code grew from. I: inferred. See docs/provenance.md.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """High resolution, starting from the checkpoint of stage 1 (P)."""
    config = base.get_config()
    config.name = 'stage2'
    config.image_size = 512  # I: A works at 512
    config.batch_size = 10  # A
    config.num_epochs = 60  # A
    config.init_from = 'runs/stage1'  # P: the weights of the low resolution
    config.init_weights = 'average'  # I: the purpose of SWA in stage 1
    config.optimizer.name = 'sgd'  # A: the notebook that has lines for ResNet34
    config.optimizer.learning_rate = 1e-3  # A
    config.optimizer.final_learning_rate = 1e-5  # A
    config.averaging.start = config.get_ref('num_epochs') - 5  # A: the last 5 of 60
    return config
