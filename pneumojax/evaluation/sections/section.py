"""What every section of an evaluation has in common."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from pneumojax.evaluation.metrics import Metric
from pneumojax.evaluation.per_image import PerImage
from pneumojax.evaluation.per_lesion import PerLesion


class Measured(NamedTuple):
    """All that sections are made of."""

    images: PerImage
    unit: str = 'px'  # of distances: 'mm' or 'px'
    lesions: PerLesion | None = None
    # By grouping, such as 'Sex': the group of each image, '' where that is not known.
    groups: Mapping[str, Sequence[str]] = MappingProxyType({})


def no_details(_: Measured, *, seed: int, samples: int) -> dict[str, Any]:
    """For sections that are metrics alone."""
    del seed, samples
    return {}


def no_html(_: Mapping[str, Any]) -> str:
    """For sections that `metrics` tell enough of."""
    return ''


class Section(NamedTuple):
    """One section of evaluation.json and of report.html.

    Attributes:
      key: under which evaluation.json holds it.
      title: heading in reports.
      note: how it is defined, in a few plain sentences.
      metrics: figures with an interval; `--compare` shows their paired differences.
      names: of each of `metrics` in reports and tables.
      needs: columns of `PerImage` without which there is no such section.
      details: more for evaluation.json: curves, tables. Its keys are none of `metrics`.
      html: of what evaluation.json holds: more for report.html, after the table of `metrics`.
    """

    key: str
    title: str
    note: str
    metrics: Mapping[str, Metric]
    names: Mapping[str, str]
    needs: Sequence[str] = ()
    details: Callable[..., dict[str, Any]] = no_details
    html: Callable[[Mapping[str, Any]], str] = no_html

    def described(self, found: Mapping[str, Any]) -> str:
        """The note, and the unit of distances where there is one.

        Args:
          found: what evaluation.json holds of the section.
        """
        return self.note + (f' Here: {found["unit"]}.' if 'unit' in found else '')

    def is_known(self, images: PerImage) -> bool:
        """Whether the images have all columns that it needs."""
        return all(getattr(images, name) is not None for name in self.needs)
