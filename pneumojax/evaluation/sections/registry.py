"""The sections of an evaluation, in the order of its reports."""

from typing import Any

from pneumojax.evaluation import metrics
from pneumojax.evaluation.sections.boundary import BOUNDARY
from pneumojax.evaluation.sections.image_calibration import IMAGE_CALIBRATION
from pneumojax.evaluation.sections.image_level import IMAGE_LEVEL
from pneumojax.evaluation.sections.lesions import LESIONS
from pneumojax.evaluation.sections.missed import MISSED
from pneumojax.evaluation.sections.section import Measured, Section
from pneumojax.evaluation.sections.subgroups import SUBGROUPS
from pneumojax.evaluation.statistics import bootstrap

SECTIONS: tuple[Section, ...] = (
    BOUNDARY, LESIONS, IMAGE_LEVEL, IMAGE_CALIBRATION, MISSED, SUBGROUPS,
)  # fmt: skip


def summarize(
    measured: Measured, *, seed: int, samples: int = bootstrap.SAMPLES
) -> dict[str, dict[str, Any]]:
    """The sections that can be made of what was measured, as evaluation.json holds them.

    Args:
      measured: N images, and what else is known of them.
      seed: of the bootstrap.
      samples: resamples.

    Returns:
      {key: {metric: {'value', 'low', 'high'}, ..., and what the section's `details` add}}.
    """
    found = {
        section.key: {
            **metrics.with_intervals(section.metrics, measured.images, seed=seed, samples=samples),
            **section.details(measured, seed=seed, samples=samples),
        }
        for section in SECTIONS
        if section.is_known(measured.images)
    }
    return {key: content for key, content in found.items() if content}
