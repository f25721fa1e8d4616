// Reads SEG files as OHIF does, by @cornerstonejs/adapters, and compares them with mask.raw.
//
//   python -m tests.viewers.studies FOLDER
//   npm install esbuild dcmjs @babel/runtime @cornerstonejs/{adapters,core,tools,metadata}@5.14.0
//   cp tests/viewers/adapters.mjs . && npx esbuild adapters.mjs --bundle --platform=node \
//     --format=esm --outfile=bundle.mjs --banner:js="$(sed -n 's|^// banner: ||p' adapters.mjs)"
//   node bundle.mjs FOLDER/[0-9]*
//
// The packages are for browsers; this stands for what they ask of one when they are loaded:
// banner: import { createRequire as make } from 'node:module'; const require = make(import.meta.url); globalThis.window ??= globalThis; globalThis.self ??= globalThis; globalThis.document ??= {createElement: () => ({getContext: () => null, style: {}}), addEventListener() {}, documentElement: {style: {}}}; globalThis.navigator ??= {userAgent: 'node', platform: 'node'}; globalThis.location ??= {href: '', search: ''};

import fs from 'node:fs';
import path from 'node:path';
import { createFromDICOMSegBuffer } from '@cornerstonejs/adapters/cornerstone3D/Segmentation/generateToolState';
import { metaData } from '@cornerstonejs/core';
import dcmjs from 'dcmjs';

function contentOf(file) {
  const bytes = fs.readFileSync(file);
  return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
}

function tagsOf(buffer) {
  const read = dcmjs.data.DicomMessage.readFile(buffer);
  return dcmjs.data.DicomMetaDictionary.naturalizeDataset(read.dict);
}

// The modules that OHIF's metadata provider has of a radiograph, which states no plane.
function modulesOf(image) {
  const axes = [1, 0, 0, 0, 1, 0];
  const corner = [0, 0, 0];
  return {
    instance: { ...image, ImageOrientationPatient: axes, ImagePositionPatient: corner },
    generalSeriesModule: { seriesInstanceUID: image.SeriesInstanceUID },
    generalImageModule: { sopInstanceUID: image.SOPInstanceUID },
    imagePlaneModule: {
      rows: image.Rows,
      columns: image.Columns,
      rowCosines: axes.slice(0, 3),
      columnCosines: axes.slice(3),
      imageOrientationPatient: axes,
      imagePositionPatient: corner,
      rowPixelSpacing: 1,
      columnPixelSpacing: 1,
    },
  };
}

async function read(study) {
  const modules = modulesOf(tagsOf(contentOf(path.join(study, 'image.dcm'))));
  const metadataProvider = { get: (type, id) => (id === study ? modules[type] : undefined) };
  metaData.addProvider(metadataProvider.get, 10000);
  const buffer = contentOf(path.join(study, 'seg.dcm'));
  const made = await createFromDICOMSegBuffer([study], buffer, { metadataProvider });
  return Buffer.from(made.labelMapImages.flat()[0].voxelManager.getScalarData());
}

async function main(studies) {
  for (const study of studies) {
    const mask = fs.readFileSync(path.join(study, 'mask.raw'));
    const found = await read(study).catch((error) => error);
    const said = found instanceof Error ? found.message : found.equals(mask) ? 'same' : 'DIFFERENT';
    const marked = mask.reduce((sum, pixel) => sum + pixel, 0);
    console.log(`${path.basename(study)}: ${said} (${marked} pixels are marked)`);
  }
}

main(process.argv.slice(2));
