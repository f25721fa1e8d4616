"""2ST-UNet, stage 2: all of stage 1's weights, trained on at 512 px.

    python -m pneumojax.main --config=configs/stage2.py --config.data.root=DIR

As far as the method is known. P: the paper's abstract. A: the authors' later released code.
K: the public kernel that code grew from. I: inferred. See docs/provenance.md.
"""

from configs import base


def get_config():
    """High resolution, starting from the checkpoint of stage 1 (P)."""
    config = base.get_config()
    config.name = 'stage2'
    config.image_size = 512  # I: A works at 512
    config.batch_size = 10  # A
    config.num_epochs = 60  # A
    config.init_from = 'runs/stage1'  # P: the weights of the low resolution
    config.init_weights = 'average'  # I: what SWA of stage 1 was for
    config.optimizer.name = 'sgd'  # A: the notebook with ResNet34's lines
    config.optimizer.learning_rate = 1e-3  # A
    config.optimizer.final_learning_rate = 1e-5  # A
    config.averaging.start = config.get_ref('num_epochs') - 5  # A: the last 5 of 60
    return config
