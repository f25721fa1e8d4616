"""The shapes in annotations are checked where pyproject.toml says, and only in tests."""

import subprocess
import sys

import jax.numpy as jnp
import jaxtyping
import pytest

from pneumojax.models import unet


def test_right_shapes_pass():
    assert unet.gate(jnp.zeros((2, 4, 4, 1)), jnp.zeros(2)).shape == (2, 4, 4, 1)


@pytest.mark.parametrize(
    ('logits', 'image_logits'),
    [((2, 4, 4), (2,)), ((2, 4, 4, 3), (2,)), ((2, 4, 4, 1), (3,)), ((2, 4, 4, 1), (2, 1))],
)
def test_a_wrong_shape_is_found(logits, image_logits):
    with pytest.raises(jaxtyping.TypeCheckError):
        unet.gate(jnp.zeros(logits), jnp.zeros(image_logits))


def test_a_wrong_type_is_found():
    with pytest.raises(jaxtyping.TypeCheckError):
        unet.gate(jnp.zeros((2, 4, 4, 1), int), jnp.zeros(2))


def test_the_program_itself_checks_nothing():
    code = (
        'import sys, jax.numpy as jnp\n'
        'from pneumojax.models import unet\n'
        'unet.gate(jnp.zeros((2, 4, 4, 3)), jnp.zeros(2))\n'
        'assert "beartype" not in sys.modules'
    )
    subprocess.run([sys.executable, '-c', code], check=True)
