"""The name table in code, in third_party, in our variables and in the works themselves."""

import csv
import pathlib

import jax
import numpy as np
import pytest

from pneumojax.models import torch_names
from pneumojax.models.efficientnet import EfficientNetLite0
from pneumojax.models.resnet import ResNet34
from pneumojax.models.unet import UNet
from tests.models import torch_references as references

THIRD_PARTY = pathlib.Path(__file__).parents[2] / 'third_party'
TABLES = {
    'torchvision/resnet34.csv': (torch_names.resnet34(3, 1000), str),
    'huggingface_resnet/resnet34.csv': (torch_names.resnet34(3, 1000), torch_names.huggingface),
    'timm/efficientnet_lite0.csv': (torch_names.efficientnet_lite0(3, 1000), str),
    'segmentation_models_pytorch/unet_resnet34.csv': (torch_names.smp_unet(3), str),
    'segmentation_models_pytorch/unet_efficientnet_lite0.csv': (
        torch_names.smp_unet(3, encoder='efficientnet_lite0'),
        str,
    ),
}


def read(table):
    """Rows (name, shape, path) of a table in third_party."""
    with open(THIRD_PARTY / table, newline='') as f:
        rows = list(csv.DictReader(f))
    return [
        (
            row['name'],
            tuple(int(n) for n in row['shape'].split('x') if n),
            tuple(row['path'].split('/')) if row['path'] else None,
        )
        for row in rows
    ]


def state_dict(table):
    """The state dict of the work itself."""
    if table.startswith('torchvision'):
        return references.require('torchvision').models.resnet34().state_dict()
    if table.startswith('segmentation'):
        smp = references.require('segmentation_models_pytorch')
        encoder = 'resnet34' if 'resnet34' in table else 'tu-tf_efficientnet_lite0'
        return smp.Unet(encoder, encoder_weights=None).state_dict()
    if table.startswith('timm'):
        timm = references.require('timm')
        return timm.create_model('tf_efficientnet_lite0', pretrained=False).state_dict()
    transformers = references.require('transformers')
    config = transformers.ResNetConfig(
        layer_type='basic',
        depths=[3, 4, 6, 3],
        hidden_sizes=[64, 128, 256, 512],
        num_labels=1000,
    )
    return transformers.ResNetForImageClassification(config).state_dict()


@pytest.mark.parametrize('table', TABLES)
def test_code_and_table_are_equal(table):
    names, translate = TABLES[table]
    expected = {translate(n.torch): (n.shape, n.path) for n in names}
    assert len(expected) == len(names)
    assert {name: (shape, path) for name, shape, path in read(table)} == expected


@pytest.mark.parametrize('table', TABLES)
def test_table_is_the_state_dict_of_the_work_itself(table):
    theirs = [(name, tuple(tensor.shape)) for name, tensor in state_dict(table).items()]
    assert [(name, shape) for name, shape, _ in read(table)] == theirs


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('size', [{}, {'width': 12, 'stage_sizes': (2, 1, 3, 1)}])
def test_every_variable_has_its_name(size, channels):
    x = jax.ShapeDtypeStruct((1, 64, 64, channels), np.float32)
    for model, names in [
        (ResNet34(num_classes=7, **size), torch_names.resnet34(channels, 7, **size)),
        (UNet(**size), torch_names.smp_unet(channels, **size)),
        (EfficientNetLite0(), torch_names.efficientnet_lite0(channels, 7)),
        (
            UNet(encoder='efficientnet_lite0', width=12, classification_head=True),
            torch_names.smp_unet(
                channels, encoder='efficientnet_lite0', width=12, classification_head=True
            ),
        ),
    ]:
        shapes = jax.eval_shape(lambda x, m=model: m.init(jax.random.key(0), x, train=False), x)
        flat, _ = jax.tree_util.tree_flatten_with_path(shapes)
        ours = {tuple(k.key for k in path): leaf.shape for path, leaf in flat}
        assert ours == {n.path: torch_names.flax_shape(n) for n in names if n.path}


def test_layouts_there_and_back():
    rng = np.random.default_rng(0)
    for name in torch_names.resnet34(3, 5, width=4, stage_sizes=(1, 1, 1, 1)):
        tensor = rng.random(name.shape)
        array = torch_names.flax_array(name, tensor)
        assert array.shape == torch_names.flax_shape(name)
        assert array.flags.c_contiguous
        np.testing.assert_array_equal(torch_names.torch_array(name, array), tensor)
    conv = torch_names.resnet34()[0]
    tensor = rng.random(conv.shape)
    assert torch_names.flax_array(conv, tensor)[1, 2, 0, 5] == tensor[5, 0, 1, 2]
