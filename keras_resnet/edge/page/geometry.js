// An image is cut or padded, resized and cropped to the model's input: the same as
// keras_resnet/runner/geometry.py. `how` is what preprocessing.json says:
// {inputSize: [height, width], resizedSize: [height, width], resize, interpolation,
// antialias}.
"use strict";

const MAX_PIXELS = 89478485; // as the runner has it

function resizeAndCrop(image, how) {
  const target = [how.inputSize[1], how.inputSize[0]];
  let newSize = [how.resizedSize[1], how.resizedSize[0]];
  let region = [0, 0, image.width, image.height];
  const size = [image.width, image.height];
  const resizeRegion = how.antialias ? resizeWithPillow : sampleRegion;
  if (how.resize === "pad") {
    const { size: fitted, place } = fittingSize(size, target);
    const whole = [0, 0, ...fitted];
    const part = resizeRegion(image, region, fitted, whole, how.interpolation);
    return onBlack(part, target, place);
  }
  if (how.resize === "crop" && how.antialias) {
    newSize = coveringSize(size, newSize);
    if (newSize[0] * newSize[1] > MAX_PIXELS) {
      throw new Error(
        `${image.width} x ${image.height} pixels: too elongated to be resized.`,
      );
    }
  } else if (how.resize === "crop") {
    region = regionOfAspect(size, target);
  }
  const crop = centredCrop(newSize, target);
  return resizeRegion(image, region, newSize, crop, how.interpolation);
}

// Where the whole image lies in the input, [left, top, right, bottom] as shares of the
// input's width and height.
function placement(size, how) {
  const target = [how.inputSize[1], how.inputSize[0]];
  let newSize = [how.resizedSize[1], how.resizedSize[0]];
  let region = [0, 0, ...size];
  let first;
  if (how.resize === "pad") {
    ({ size: newSize, place: first } = fittingSize(size, target));
  } else {
    if (how.resize === "crop" && how.antialias) newSize = coveringSize(size, newSize);
    else if (how.resize === "crop") region = regionOfAspect(size, target);
    first = centredCrop(newSize, target)
      .slice(0, 2)
      .map((side) => -side);
  }
  const [low, high] = [[], []];
  for (const axis of [0, 1]) {
    const scale = newSize[axis] / (region[axis + 2] - region[axis]);
    const start = first[axis] - region[axis] * scale;
    low.push(start / target[axis]);
    high.push((start + size[axis] * scale) / target[axis]);
  }
  return [...low, ...high];
}

function centredCrop(size, crop) {
  const [left, top] = [0, 1].map((axis) =>
    roundHalfEven((size[axis] - crop[axis]) / 2),
  );
  return [left, top, left + crop[0], top + crop[1]];
}

function coveringSize([width, height], target) {
  if (width * target[1] <= height * target[0]) {
    return [target[0], Math.trunc((target[0] * height) / width)];
  }
  return [Math.trunc((target[1] * width) / height), target[1]];
}

// In 32 bits, as `tf.image.resize_with_pad`.
function fittingSize(size, target) {
  const ratios = [0, 1].map((axis) => Math.fround(size[axis] / target[axis]));
  const ratio = Math.max(...ratios);
  const fitted = size.map((side) => Math.fround(side / ratio));
  const place = [0, 1].map((axis) =>
    Math.trunc(Math.max(0, Math.fround(target[axis] - fitted[axis]) / 2)),
  );
  return { size: fitted.map((side) => Math.trunc(Math.max(1, side))), place };
}

function regionOfAspect([width, height], aspect) {
  const cut = [
    Math.max(1, Math.min(width, Math.floor((height * aspect[0]) / aspect[1]))),
    Math.max(1, Math.min(height, Math.floor((width * aspect[1]) / aspect[0]))),
  ];
  const left = Math.floor((width - cut[0]) / 2);
  const top = Math.floor((height - cut[1]) / 2);
  return [left, top, left + cut[0], top + cut[1]];
}

function resizeWithPillow(image, region, newSize, crop, interpolation) {
  const [width, height] = [crop[2] - crop[0], crop[3] - crop[1]];
  if (interpolation === "nearest") {
    const whole = resizeNearest(image, ...newSize);
    return cropped(whole, crop);
  }
  // Resize and crop at once: pixels outside the crop are never computed.
  const across = (region[2] - region[0]) / newSize[0];
  const down = (region[3] - region[1]) / newSize[1];
  const part = [
    region[0] + crop[0] * across,
    region[1] + crop[1] * down,
    region[0] + crop[2] * across,
    region[1] + crop[3] * down,
  ];
  return resizeLikePillow(image, width, height, part, interpolation);
}

function cropped(image, [left, top, right, bottom]) {
  const result = blank(right - left, bottom - top);
  for (let row = top; row < bottom; row++) {
    const start = 4 * (row * image.width + left);
    const line = image.data.subarray(start, start + 4 * result.width);
    result.data.set(line, 4 * (row - top) * result.width);
  }
  return result;
}

function onBlack(image, [width, height], [left, top]) {
  const result = blank(width, height);
  new Uint32Array(result.data.buffer).fill(0xff000000); // opaque
  for (let row = 0; row < image.height; row++) {
    const line = image.data.subarray(
      4 * row * image.width,
      4 * (row + 1) * image.width,
    );
    result.data.set(line, 4 * ((top + row) * width + left));
  }
  return result;
}
