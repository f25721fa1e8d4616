"""What a prediction writes and what computes it, as its user chose."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from pneumojax.data.files import chest
from pneumojax.errors import UsageError

OBJECTS = ('seg', 'sr', 'secondary_capture', 'gsps')  # the DICOM files, in order of writing
SEG, SEG_FOR = ('binary', 'fractional', 'none'), ('all', 'positive')
ACCEPT = ('chest', 'any')


@dataclasses.dataclass(frozen=True)
class Options:
    """What to write besides tables and masks, and what computes.

    Attributes:
      outputs: which DICOM files, some of `OBJECTS`; None for SEG, unless `seg` is 'none'.
      seg: DICOM SEG files of masks ('binary'), of probabilities ('fractional'), or none.
      seg_for: SEG files about 'all' images, or about 'positive' ones, with a marked area.
      overlays: pictures of the outline on the radiograph.
      heatmap: pictures of the probability on the radiograph.
      report: `report.html`.
      show_names: patients' names in the report.
      private: what is written can be read by its owner alone.
      runtime: what computes, see `runtimes.choose`.
      precision: of the computation, see `runtimes.choose`.
      accept: which radiographs to predict, see `inputs.read`.
    """

    outputs: Sequence[str] | None = None
    seg: Literal['binary', 'fractional', 'none'] = 'binary'
    seg_for: Literal['all', 'positive'] = 'all'
    overlays: bool = True
    heatmap: bool = False
    report: bool = True
    show_names: bool = False
    private: bool = False
    runtime: str = 'auto'
    precision: str = 'auto'
    accept: chest.Accept = 'chest'

    def __post_init__(self) -> None:
        for name, allowed in (('seg', SEG), ('seg_for', SEG_FOR), ('accept', ACCEPT)):
            if getattr(self, name) not in allowed:
                words = ', '.join(map(repr, allowed))
                raise UsageError(f'--{name} is {getattr(self, name)!r}: expected one of {words}')
        for name in self.outputs or ():
            if name not in OBJECTS:
                raise UsageError(f'--outputs has {name!r}: expected some of {", ".join(OBJECTS)}')
        if self.seg == 'none' and 'seg' in (self.outputs or ()):
            raise UsageError('--outputs asks for SEG files and --seg=none for none; drop one')

    def writes(self, name: str) -> bool:
        """Whether a DICOM file of this name in `OBJECTS` is wanted."""
        if self.outputs is None:
            return name == 'seg' and self.seg != 'none'
        return name in self.outputs

    @property
    def identity(self) -> dict[str, str | bool]:
        """The options on which the content of a file depends, not only whether it is written."""
        return {
            'accept': self.accept,
            'seg': self.seg if self.writes('seg') else 'none',
            'seg_for': self.seg_for,
            'show_names': self.show_names,
        }
