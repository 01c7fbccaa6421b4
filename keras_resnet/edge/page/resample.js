// Pillow's resampling of 8-bit pixels, to equal pixels: two passes with coefficients of
// 22 bits, each rounded and clipped (Pillow 13, src/libImaging/Resample.c).
//
// An image is {data, width, height}: RGBA bytes, row by row. Alpha is not computed.
"use strict";

const PRECISION_BITS = 22;

const FILTERS = {
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: { support: 2, weight: (x) => cubic(Math.abs(x)) },
  lanczos: {
    support: 3,
    weight: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0),
  },
};

function cubic(x) {
  const a = -0.5;
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

function sinc(x) {
  if (x === 0) return 1;
  return Math.sin(x * Math.PI) / (x * Math.PI);
}

// Which pixels of an axis make each new pixel, and with which fixed-point weights.
function coefficients(size, start, end, newSize, filter) {
  const { support, weight } = FILTERS[filter];
  // Pillow holds the box in 32 bits, and subtracts in them.
  start = Math.fround(start);
  const scale = Math.fround(Math.fround(end) - start) / newSize;
  const filterScale = Math.max(scale, 1);
  const reach = support * filterScale;
  const taps = [];
  for (let place = 0; place < newSize; place++) {
    const centre = start + (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach + 0.5));
    const last = Math.min(size, Math.trunc(centre + reach + 0.5));
    const weights = new Float64Array(last - first);
    let sum = 0;
    for (let i = 0; i < weights.length; i++) {
      weights[i] = weight((i + first - centre + 0.5) * (1 / filterScale));
      sum += weights[i];
    }
    const fixed = Int32Array.from(weights, (one) => {
      const share = sum === 0 ? one : one / sum;
      return Math.trunc(share * 2 ** PRECISION_BITS + (share < 0 ? -0.5 : 0.5));
    });
    taps.push({ first, fixed });
  }
  return taps;
}

// Computes pixels (places of `lines`) x (taps): `step` is the distance in bytes of two
// taps, `lineStep` that of two lines.
function onePass(source, lines, taps, step, lineStep, target, targetStep, targetLine) {
  for (const [line, from] of lines.entries()) {
    for (const [place, { first, fixed }] of taps.entries()) {
      let at = from * lineStep + first * step;
      let red = 1 << (PRECISION_BITS - 1);
      let green = red;
      let blue = red;
      for (let i = 0; i < fixed.length; i++, at += step) {
        red = (red + Math.imul(source[at], fixed[i])) | 0;
        green = (green + Math.imul(source[at + 1], fixed[i])) | 0;
        blue = (blue + Math.imul(source[at + 2], fixed[i])) | 0;
      }
      const to = line * targetLine + place * targetStep;
      target[to] = red >> PRECISION_BITS; // a clamped array clips to 0..255
      target[to + 1] = green >> PRECISION_BITS;
      target[to + 2] = blue >> PRECISION_BITS;
      target[to + 3] = 255;
    }
  }
}

function blank(width, height) {
  return { data: new Uint8ClampedArray(4 * width * height), width, height };
}

function range(first, end) {
  return Array.from({ length: end - first }, (_, i) => first + i);
}

// The first and the end of the pixels that taps read.
function extent(taps) {
  const last = taps[taps.length - 1];
  return [taps[0].first, last.first + last.fixed.length];
}

function shifted(taps, by) {
  return taps.map(({ first, fixed }) => ({ first: first - by, fixed }));
}

function horizontalPass(image, taps, rows) {
  const result = blank(taps.length, rows.length);
  const lineStep = 4 * image.width;
  onePass(image.data, rows, taps, 4, lineStep, result.data, 4, 4 * taps.length);
  return result;
}

function verticalPass(image, taps, columns) {
  const result = blank(columns.length, taps.length);
  const step = 4 * image.width;
  onePass(image.data, columns, taps, step, 4, result.data, 4 * columns.length, 4);
  return result;
}

// `Image.resize((width, height), filter, box)`; the box is [left, top, right, bottom].
function resizeLikePillow(image, width, height, box, filter) {
  const [left, top, right, bottom] = box.map(Math.fround);
  const across = coefficients(image.width, left, right, width, filter);
  const down = coefficients(image.height, top, bottom, height, filter);
  const isSame = (size, newSize, start, end) =>
    newSize === size && start === 0 && end === newSize;
  const needsAcross = !isSame(image.width, width, left, right);
  const needsDown = !isSame(image.height, height, top, bottom);
  if (!needsAcross && !needsDown) return image;
  if (!needsAcross) return verticalPass(image, down, range(0, width));
  if (!needsDown) return horizontalPass(image, across, range(0, height));
  const shrink = image.height - height;
  if (shrink > 0 && shrink > 2 * (image.width - width)) {
    const [first, end] = extent(across);
    const part = verticalPass(image, down, range(first, end));
    return horizontalPass(part, shifted(across, first), range(0, height));
  }
  const [first, end] = extent(down);
  const part = horizontalPass(image, across, range(first, end));
  return verticalPass(part, shifted(down, first), range(0, width));
}

// The same with the filter "nearest" and without a box.
function resizeNearest(image, width, height) {
  const places = (size, newSize) => {
    const scale = size / newSize;
    let place = scale * 0.5;
    return range(0, newSize).map(() => {
      const found = Math.trunc(place);
      place += scale; // Pillow adds, too: rounding errors are the same
      return found;
    });
  };
  const columns = places(image.width, width);
  const rows = places(image.height, height);
  const from = new Uint32Array(image.data.buffer, image.data.byteOffset);
  const result = blank(width, height);
  const to = new Uint32Array(result.data.buffer);
  for (const [y, row] of rows.entries()) {
    for (const [x, column] of columns.entries()) {
      to[y * width + x] = from[row * image.width + column];
    }
  }
  return result;
}
