// From the output of a segmenter to a mask: keras_resnet/runner/segmenter.py and
// boxes.py in JavaScript.
"use strict";

// The class of each pixel of the output, {mask, rows, columns}.
function bestPixels({ data, shape }) {
  const [, rows, columns, classes = 1] = shape;
  const mask = new Uint8Array(rows * columns);
  for (let pixel = 0; pixel < mask.length; pixel++) {
    if (classes === 1) {
      mask[pixel] = data[pixel]; // it is the class already
      continue;
    }
    let best = pixel * classes;
    for (let at = best + 1; at < (pixel + 1) * classes; at++) {
      if (data[at] > data[best]) best = at;
    }
    mask[pixel] = best - pixel * classes;
  }
  return { mask, rows, columns };
}

// Which row (or column) of the mask lies nearest to each of a picture's.
function nearestRows(length, [start, end], sourceLength) {
  return range(0, length).map((row) => {
    const share = start + ((row + 0.5) / length) * (end - start);
    return Math.min(Math.max(Math.floor(share * sourceLength), 0), sourceLength - 1);
  });
}

// The mask of a picture of [width, height] that lies at `place` in the input.
function maskOfPicture({ mask, rows, columns }, [width, height], place) {
  const [left, top, right, bottom] = place;
  const across = nearestRows(width, [left, right], columns);
  const result = new Uint8Array(width * height);
  for (const [y, row] of nearestRows(height, [top, bottom], rows).entries()) {
    for (const [x, column] of across.entries()) {
      result[y * width + x] = mask[row * columns + column];
    }
  }
  return result;
}

// The classes in a picture of [width, height], [{label, index, score}]: `score` is the
// share of its pixels; the largest is first.
function regions({ mask, rows, columns }, [width, height], place, labels) {
  const [left, top, right, bottom] = place;
  // How many rows and columns of the picture each of the mask's makes.
  const down = new Float64Array(rows);
  const across = new Float64Array(columns);
  for (const row of nearestRows(height, [top, bottom], rows)) down[row]++;
  for (const column of nearestRows(width, [left, right], columns)) across[column]++;
  const counts = new Float64Array(256);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      counts[mask[row * columns + column]] += down[row] * across[column];
    }
  }
  return Array.from(counts.keys())
    .filter((index) => counts[index])
    .map((index) => ({
      index,
      score: counts[index] / (width * height),
      label: labels?.[index] ?? `class ${index}`,
    }))
    .sort((a, b) => b.score - a.score || a.index - b.index);
}
