"""Number for number: our networks with converted weights against the PyTorch originals."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy

from pneumojax.models import pretrained, torch_names
from pneumojax.models.convert import convert
from pneumojax.models.resnet import ResNet34
from pneumojax.models.unet import UNet
from tests.models import torch_references as references

SIZES = [(256, 256), (512, 512), (330, 410)]


def images(size, channels=3, batch=1):
    rng = np.random.default_rng(0)
    return rng.standard_normal((batch, *size, channels)).astype(np.float32)


def save(module, path):
    """Writes a module's state dict as .safetensors, by the package's numpy half."""
    tensors = {k: v.numpy().copy() for k, v in module.state_dict().items()}
    safetensors.numpy.save_file(tensors, path)
    return path


def close(actual, expected, what, tolerance=1e-4):
    error = references.relative_error(actual, expected)
    print(f'{what}: relative error {error:.1e}')
    assert error < tolerance, what


@jax.jit
def classify(variables, x):
    """The five feature maps and the logits, from one compilation."""
    logits, state = ResNet34(num_classes=1000).apply(
        variables, x, train=False, capture_intermediates=True
    )
    at = state['intermediates']
    blocks = ('layer1_2', 'layer2_3', 'layer3_5', 'layer4_2')
    stem = jax.nn.relu(at['bn1']['__call__'][0])
    return [stem, *(at[name]['__call__'][0] for name in blocks)], logits


@jax.jit
def segment(variables, x):
    return UNet().apply(variables, x, train=False)


def torchvision_features(net, x):
    maps = [net.relu(net.bn1(net.conv1(x)))]
    y = net.maxpool(maps[0])
    for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
        y = layer(y)
        maps.append(y)
    return maps


@pytest.fixture(scope='module')
def classifier(tmp_path_factory):
    """torchvision's ResNet34 with random weights, and its file."""
    torchvision = references.require('torchvision')
    net = references.randomize(torchvision.models.resnet34(num_classes=1000), 1)
    return net, save(net, tmp_path_factory.mktemp('weights') / 'classifier.safetensors')


@pytest.fixture(scope='module')
def unet(tmp_path_factory):
    """segmentation_models_pytorch's Unet with random weights, and its file."""
    smp = references.require('segmentation_models_pytorch')
    net = references.randomize(smp.Unet('resnet34', encoder_weights=None), 2)
    return net, save(net, tmp_path_factory.mktemp('weights') / 'unet.safetensors')


@pytest.mark.slow
@pytest.mark.parametrize('size', SIZES)
def test_torchvision_features_and_logits(classifier, size):
    net, path = classifier
    x = images(size)
    features, logits = classify(pretrained.load_resnet34(path, num_classes=1000), x)
    expected = torchvision_features(net, references.to_torch(x))
    for i, (ours, theirs) in enumerate(zip(features, expected, strict=True)):
        close(ours, references.from_torch(theirs), f'torchvision {size} feature map {i}')
    close(logits, references.from_torch(net(references.to_torch(x))), f'torchvision {size} logits')


@pytest.mark.slow
def test_the_encoder_alone_gives_the_same_feature_maps(classifier):
    net, path = classifier
    x = images((75, 50))
    features = jax.jit(lambda v, x: ResNet34().apply(v, x, train=False))(
        pretrained.load_resnet34(path), x
    )
    expected = torchvision_features(net, references.to_torch(x))
    for i, (ours, theirs) in enumerate(zip(features, expected, strict=True)):
        close(ours, references.from_torch(theirs), f'encoder feature map {i}')


@pytest.mark.slow
@pytest.mark.parametrize('size', [(256, 256), (224, 160)])
def test_smp_unet_on_an_efficientnet_lite0(size, tmp_path):
    smp = references.require('segmentation_models_pytorch')
    encoder = 'tu-tf_efficientnet_lite0'
    net = references.randomize(smp.Unet(encoder, encoder_weights=None), 4)
    x = images(size)
    variables = pretrained.load_smp_unet(save(net, tmp_path / 'x.safetensors'))
    model = UNet(encoder='efficientnet_lite0')
    ours = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, x)
    close(ours, references.from_torch(net(references.to_torch(x))), f'lite0 {size} logits')
    other = smp.Unet(encoder, encoder_weights=None)
    state = {k: references.require('torch').from_numpy(v) for k, v in
             pretrained.to_torch(variables).items()}  # fmt: skip
    other.load_state_dict(state, strict=True)
    close(references.from_torch(other.eval()(references.to_torch(x))), ours, 'and back')


@pytest.mark.slow
def test_timm_logits(tmp_path):
    timm = references.require('timm')
    net = references.randomize(timm.create_model('resnet34', pretrained=False), 3)
    x = images((330, 410))
    variables = pretrained.load_resnet34(save(net, tmp_path / 'x.safetensors'), num_classes=1000)
    close(classify(variables, x)[1], references.from_torch(net(references.to_torch(x))), 'timm')


@pytest.mark.slow
def test_hugging_face_logits_and_features(tmp_path):
    transformers = references.require('transformers')
    config = transformers.ResNetConfig(
        layer_type='basic',
        depths=[3, 4, 6, 3],
        hidden_sizes=[64, 128, 256, 512],
        num_labels=1000,
    )
    net = references.randomize(transformers.ResNetForImageClassification(config), 4)
    x = images((330, 410))
    path = save(net, tmp_path / 'whole.safetensors')
    features, logits = classify(pretrained.load_resnet34(path, num_classes=1000), x)
    output = net(references.to_torch(x), output_hidden_states=True)
    close(logits, references.from_torch(output.logits), 'Hugging Face logits')
    # The first hidden state comes after the max-pool, which is no feature map of ours.
    expected = output.hidden_states[1:]
    for i, (ours, theirs) in enumerate(zip(features[1:], expected, strict=True)):
        close(ours, references.from_torch(theirs), f'Hugging Face feature map {i + 1}')

    # ResNetModel has the same names without 'resnet.' and no classifier.
    bare = pretrained.load_resnet34(save(net.resnet, tmp_path / 'bare.safetensors'))
    jax.tree.map(np.testing.assert_array_equal, bare, pretrained.load_resnet34(path))


@pytest.mark.slow
@pytest.mark.parametrize('size', SIZES)
def test_smp_unet_logits(unet, size):
    net, path = unet
    x = images(size)
    variables = pretrained.load_smp_unet(path)
    logits = segment(variables, x)
    # Its parts one by one: called as a whole it refuses sizes that 32 does not divide.
    expected = net.segmentation_head(net.decoder(net.encoder(references.to_torch(x))))
    close(logits, references.from_torch(expected), f'smp Unet {size} logits')


@pytest.mark.slow
def test_one_channel_smp_unet(tmp_path):
    smp = references.require('segmentation_models_pytorch')
    net = references.randomize(smp.Unet('resnet34', encoder_weights=None, in_channels=1), 5)
    x = images((256, 256), channels=1)
    path = save(net, tmp_path / 'x.safetensors')
    expected = references.from_torch(net(references.to_torch(x)))
    close(segment(pretrained.load_smp_unet(path, channels=1), x), expected, 'one channel')
    repeated = np.repeat(x, 3, axis=-1)
    close(segment(pretrained.load_smp_unet(path, channels=3), repeated), expected, 'one in three')


def test_our_state_dict_is_theirs(unet):
    net, path = unet
    torch = references.require('torch')
    smp = references.require('segmentation_models_pytorch')
    state_dict = pretrained.to_torch(pretrained.load_smp_unet(path))
    other = smp.Unet('resnet34', encoder_weights=None)
    other.load_state_dict({k: torch.from_numpy(v) for k, v in state_dict.items()}, strict=True)
    for name, tensor in net.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name].numpy(), tensor.numpy(), name)


def dice_and_bce(logits, masks, xp, bce):
    """BCE plus soft Dice over the whole batch, smooth 1, for both frameworks."""
    p = 1 / (1 + xp.exp(-logits))
    dice = (2 * (p * masks).sum() + 1) / (p.sum() + masks.sum() + 1)
    return bce(logits, masks) + 1 - dice


def our_step(variables, x, masks, dtype):
    """Loss, gradients and new statistics, the latter two as a state dict."""
    cast = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree)  # noqa: E731
    variables, x, masks = cast(variables), cast(x), cast(masks)

    def loss_fn(params):
        logits, updates = UNet(dtype=dtype).apply(
            {**variables, 'params': params}, x, train=True, mutable=['batch_stats']
        )
        bce = lambda z, t: optax.sigmoid_binary_cross_entropy(z, t).mean()  # noqa: E731
        return dice_and_bce(logits, masks, jnp, bce), updates['batch_stats']

    (loss, stats), gradients = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))(
        variables['params']
    )
    trees = {'params': gradients, 'batch_stats': stats}
    out = {}
    for name in torch_names.smp_unet():
        if name.path is not None:
            leaf = trees
            for key in name.path:
                leaf = leaf[key]
            out[name.torch] = torch_names.torch_array(name, np.asarray(leaf))
    return float(loss), out


def their_step(net, x, masks, dtype):
    """The same of the PyTorch original."""
    torch = references.require('torch')
    net = copy.deepcopy(net).to(dtype).train()
    logits = net(references.to_torch(x).to(dtype))
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    loss = dice_and_bce(logits, references.to_torch(masks).to(dtype), torch, bce)
    loss.backward()
    gradients = {name: p.grad.numpy() for name, p in net.named_parameters()}
    stats = {k: v.numpy() for k, v in net.state_dict().items() if 'running' in k}
    return loss.item(), gradients, stats


@pytest.fixture(scope='module')
def batch():
    x = images((64, 96), batch=4)
    masks = np.zeros((4, 64, 96, 1), np.float32)
    masks[:2, 20:50, 20:50] = 1
    return x, masks


@pytest.mark.slow
def test_one_training_step_in_float64(unet, batch):
    """Loss, gradients and statistics: the mathematics is the same, to the last digits."""
    net, path = unet
    torch = references.require('torch')
    with jax.enable_x64():
        loss, ours = our_step(pretrained.load_smp_unet(path), *batch, jnp.float64)
    expected, gradients, stats = their_step(net, *batch, torch.float64)
    worst = max(references.relative_error(ours[k], g) for k, g in gradients.items())
    print(f'float64: loss {abs(loss / expected - 1):.1e}, worst gradient {worst:.1e}')
    assert loss == pytest.approx(expected, rel=1e-10)
    assert worst < 1e-8

    # PyTorch keeps the unbiased variance, n / (n - 1) times the one that it normalises by.
    n_of = {'encoder.bn1': 4 * 32 * 48, 'encoder.layer4.2.bn2': 4 * 2 * 3}
    for norm, n in n_of.items():
        mean, var = f'{norm}.running_mean', f'{norm}.running_var'
        close(ours[mean], stats[mean], mean, 1e-8)
        old = net.state_dict()[var].numpy().astype(np.float64)
        close(0.9 * old + (ours[var] - 0.9 * old) * n / (n - 1), stats[var], var, 1e-8)


@pytest.mark.slow
def test_one_training_step_in_float32(unet, batch):
    """In float32 the loss agrees, and the gradient as far as float32 determines it.

    A rounding error that moves an activation across ReLU's kink changes the gradient by a jump:
    PyTorch's own float32 gradient of this step is 1e-3 from its float64 one.
    """
    net, path = unet
    torch = references.require('torch')
    loss, ours = our_step(pretrained.load_smp_unet(path), *batch, jnp.float32)
    expected, exact, _ = their_step(net, *batch, torch.float64)
    _, theirs, _ = their_step(net, *batch, torch.float32)

    def distance(gradients):
        squares = sum(((gradients[k] - exact[k]) ** 2).sum() for k in exact)
        return (squares / sum((g**2).sum() for g in exact.values())) ** 0.5

    print(f'float32: loss {abs(loss / expected - 1):.1e}, distance of the gradient from the exact '
          f'one {distance(ours):.1e} (PyTorch {distance(theirs):.1e})')  # fmt: skip
    assert loss == pytest.approx(expected, rel=1e-5)
    assert distance(ours) < 1e-2


@pytest.mark.slow
def test_the_classification_head_is_smps_classification_head(tmp_path):
    """There and back: their logits of the whole image, their names from our variables."""
    smp = references.require('segmentation_models_pytorch')
    net = references.randomize(
        smp.Unet('resnet34', encoder_weights=None, aux_params={'classes': 1}), 7
    )
    path = save(net, tmp_path / 'headed.safetensors')
    variables = pretrained.load_smp_unet(path)
    run = convert(str(path), tmp_path / 'run')
    jax.tree.map(np.testing.assert_array_equal, pretrained.load_smp_unet(run), variables)
    x = images((64, 96))
    model = UNet(classification_head=True)
    ours = jax.jit(lambda v, x: model.apply(v, x, train=False, parts=True))(variables, x)
    mask, label = net(references.to_torch(x))
    close(ours[0], references.from_torch(mask), 'pixels')
    np.testing.assert_allclose(ours[1], label[:, 0].detach().numpy(), rtol=1e-4, atol=1e-4)
    back, theirs = pretrained.to_torch(variables), net.state_dict()
    assert list(back) == list(theirs)
    for name, tensor in theirs.items():
        if not name.endswith('num_batches_tracked'):
            np.testing.assert_array_equal(back[name], tensor.numpy())
