"""From a folder of radiographs to masks, DICOM SEG and tables."""
