"""Radiographs made in memory, whose UIDs follow from their numbers."""

import datetime

import numpy as np
import pydicom
from pydicom import uid

PREFIX = '1.2.826.0.1.3680043.8.498.77'


def radiograph(number, study=0, *, size=64, name='Doe^Jane', syntax=uid.ExplicitVRLittleEndian):
    """A digital radiograph with noise and a bright bar.

    Args:
      number: of the image; decides its pixels and UIDs.
      study: number of its study.
      size: of a side.
      name: of the patient.
      syntax: one of the native transfer syntaxes.
    """
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID = uid.DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = f'{PREFIX}.1.{study}.{number}'
    dataset.StudyInstanceUID = f'{PREFIX}.2.{study}'
    dataset.SeriesInstanceUID = f'{PREFIX}.3.{study}'
    dataset.StudyDate = datetime.date.today().strftime('%Y%m%d')
    dataset.StudyTime = '101500'
    dataset.StudyID = dataset.AccessionNumber = ''
    dataset.ReferringPhysicianName = ''
    dataset.PatientName, dataset.PatientID = name, f'ID{study}'
    dataset.PatientBirthDate, dataset.PatientSex = '19700101', 'F'
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = 'DX', 'CHEST', 'PA'
    dataset.InstanceNumber = number + 1
    dataset.ImagerPixelSpacing = [0.2, 0.2]
    dataset.Rows = dataset.Columns = size
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, 'MONOCHROME2'
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    pixels = np.random.default_rng(number).integers(0, 200, (size, size), np.uint8)
    pixels[:, size // 4 : size // 2] += 50
    dataset.PixelData = pixels.tobytes()
    return dataset
