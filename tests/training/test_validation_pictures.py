"""What TensorBoard shows of validation images: read back from its own files."""

import cv2
import jax.numpy as jnp
import numpy as np
from tensorboardX.proto.event_pb2 import Event

from pneumojax.data import dataset as dataset_lib
from pneumojax.drawing import overlay
from pneumojax.models import build, tta
from pneumojax.runs.run import Run
from pneumojax.training import loop, validation_pictures


def events(folder):
    """Every event of a run: TFRecord is a length, its checksum, the content and a checksum."""
    for path in sorted(folder.iterdir()):
        content, at = path.read_bytes(), 0
        while at < len(content):
            length = int.from_bytes(content[at : at + 8], 'little')
            yield Event.FromString(content[at + 12 : at + 12 + length])
            at += 16 + length


def test_the_same_images_are_chosen_with_positives_first():
    positive = np.array([0, 1, 0, 0, 1, 1, 0], bool)
    validation = np.array([6, 5, 0, 1, 3])
    for count, expected in ((3, [5, 1, 6]), (1, [5]), (9, [5, 1, 6, 0, 3])):
        assert validation_pictures.choose(positive, validation, count).tolist() == expected


def test_each_validation_shows_what_the_network_marks_then(config, tmp_path):
    config.num_epochs, config.averaging.start = 2, 0
    config.evaluation.pictures, config.checkpoint.keep = 3, 10
    run = Run(tmp_path / 'run')
    loop.train(config, run)
    values = [
        (event.step, value)
        for event in events(run / 'tensorboard')
        for value in event.summary.value
    ]
    shown = {(step, value.tag): value.image for step, value in values if value.HasField('image')}
    dataset = dataset_lib.load(config)
    ends = loop.make_plan(config, dataset).epoch_ends.tolist()
    assert list(shown) == [(end, f'validation/image {n}') for end in ends for n in (1, 2, 3)]
    assert {step for step, value in values if value.tag == 'validation/dice'} == set(ends)

    predict = tta.make_predict(config, build.make_model(config), ())
    chosen = validation_pictures.choose(dataset.positive, dataset.validation, 3)
    assert dataset.positive[chosen].all()
    for step in ends:
        variables = run.checkpoints.load_variables(
            step, build.variable_shapes(config), averaged=False
        )
        for number, index in enumerate(chosen, 1):
            image, mask = dataset.records[int(index)][:2]
            marked = np.asarray(predict(variables, jnp.asarray(image[None])))[0] >= 0.5
            expected = overlay.overlay(image, marked, mask)
            stored = shown[step, f'validation/image {number}']
            assert (stored.height, stored.width, stored.colorspace) == (32, 32, 3)
            assert len(stored.encoded_image_string) < 5000
            code = cv2.imencode('.jpg', cv2.cvtColor(expected, cv2.COLOR_RGB2BGR))[1].tobytes()
            pictures = [decoded(code), decoded(stored.encoded_image_string)]
            # A pixel where the network is undecided may round to the other side.
            assert np.abs(np.subtract(*pictures)).mean() < 1
            assert np.ptp(pictures[1], axis=2).max() > 50  # outlines have colours


def decoded(code):
    return cv2.imdecode(np.frombuffer(code, np.uint8), cv2.IMREAD_COLOR).astype(int)


def test_learning_without_labels_has_nothing_to_show(config, monkeypatch, tmp_path):
    config.loss.bce = config.loss.dice = 0.0
    config.loss.restoration, config.augment.hide, config.evaluation.pictures = 1.0, 0.5, 4
    config.num_epochs, config.averaging.start = 1, 0
    monkeypatch.setattr(loop, 'ValidationPictures', None)
    monkeypatch.setattr(loop.Trainer, 'train', lambda self, *_, **__: None)
    loop.train(config, Run(tmp_path / 'run'))
