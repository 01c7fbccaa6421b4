// Resizing without antialiasing, as `tf.image.resize` and `sample` of
// keras_resnet/runner/geometry.py do: the same operations in the same 32 bits.
"use strict";

const RADII = { bilinear: 1, bicubic: 2, lanczos: 3 };

// Weight by distance in pixels, up to 2 (Keys 1981, a = -0.5).
function keysCubic(distance) {
  if (distance <= 1) return (1.5 * distance - 2.5) * distance ** 2 + 1;
  return ((-0.5 * distance + 2.5) * distance - 4) * distance + 2;
}

function tapWeight(rest, offset, interpolation) {
  if (interpolation === "bilinear") return 1 - Math.abs(rest - offset);
  if (interpolation === "bicubic") {
    return keysCubic(Math.abs(roundHalfEven(rest * 1024) / 1024 - offset));
  }
  return sinc(rest - offset) * sinc((rest - offset) / 3);
}

// Python's and numpy's rounding: halves to the even number.
function roundHalfEven(value) {
  const below = Math.floor(value);
  const rest = value - below;
  if (rest !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}

// For each pixel from `crop[0]` to `crop[1]` of an axis that is resized from
// `region[0]`..`region[1]`: the places of its pixels and their weights.
function samplingTaps(region, newSize, crop, interpolation) {
  const length = region[1] - region[0];
  const scale = Math.fround(Math.fround(length) / Math.fround(newSize));
  return range(crop[0], crop[1]).map((pixel) => {
    const centre = Math.fround(Math.fround(pixel + 0.5) * scale);
    if (interpolation === "nearest") {
      const place = Math.min(Math.floor(centre), length - 1);
      return { places: [place + region[0]], weights: [1] };
    }
    const shifted = Math.fround(centre - 0.5);
    const before = Math.floor(shifted);
    const rest = Math.fround(shifted - before);
    const radius = RADII[interpolation];
    const places = range(before + 1 - radius, before + radius + 1);
    const weights = places.map((place, i) =>
      place >= 0 && place < length ? tapWeight(rest, i + 1 - radius, interpolation) : 0,
    );
    const sum = weights.reduce((total, weight) => total + weight, 0);
    return {
      places: places.map(
        (place) => Math.min(Math.max(place, 0), length - 1) + region[0],
      ),
      weights: weights.map((weight) => Math.fround(weight / sum)),
    };
  });
}

// A region of an image, resized to `newSize` [width, height] and cropped to `crop`
// [left, top, right, bottom].
function sampleRegion(image, region, newSize, crop, interpolation) {
  const [across, down] = [0, 1].map((axis) =>
    samplingTaps(
      [region[axis], region[axis + 2]],
      newSize[axis],
      [crop[axis], crop[axis + 2]],
      interpolation,
    ),
  );
  const result = blank(across.length, down.length);
  const lines = new Map(); // of rows: [red, green, blue] of each column, in 32 bits
  const lineOf = (row) => {
    if (!lines.has(row)) {
      const line = new Float32Array(3 * across.length);
      for (const [x, { places, weights }] of across.entries()) {
        for (const [tap, place] of places.entries()) {
          for (let channel = 0; channel < 3; channel++) {
            const value = image.data[4 * (row * image.width + place) + channel];
            line[3 * x + channel] += Math.fround(value * weights[tap]);
          }
        }
      }
      lines.set(row, line);
    }
    return lines.get(row);
  };
  for (const [y, { places, weights }] of down.entries()) {
    const levels = new Float32Array(3 * across.length);
    for (const [tap, place] of places.entries()) {
      const line = lineOf(place);
      for (let i = 0; i < levels.length; i++) {
        levels[i] += Math.fround(line[i] * weights[tap]);
      }
    }
    for (let x = 0; x < across.length; x++) {
      const at = 4 * (y * across.length + x);
      for (let channel = 0; channel < 3; channel++) {
        result.data[at + channel] = roundHalfEven(levels[3 * x + channel]);
      }
      result.data[at + 3] = 255;
    }
  }
  return result;
}
