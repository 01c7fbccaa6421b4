// Boxes and masks over the picture, in the runner's colours.
"use strict";

const OVERLAY_SIDE = 1024; // pixels of the longer side, at most
const MASK_OPACITY = 140; // of 255

// [red, green, blue] of a class, as Pascal VOC paints masks; class 0 is black.
function colourOfClass(index) {
  return [0, 1, 2].map((channel) => {
    let value = 0;
    for (let bit = 0; bit < 8; bit++) {
      value += ((index >> (3 * bit + channel)) & 1) << (7 - bit);
    }
    return value;
  });
}

// Makes the canvas as large as the picture, within bounds, and clears it.
function clearOverlay(canvas, [width, height]) {
  const scale = Math.min(1, OVERLAY_SIDE / Math.max(width, height));
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  return canvas.getContext("2d");
}

function drawObjects(canvas, size, objects) {
  const context = clearOverlay(canvas, size);
  const sides = [canvas.width, canvas.height];
  const unit = Math.max(...sides) / 64;
  context.lineWidth = Math.max(1, unit / 4);
  context.font = `${2 * unit}px sans-serif`;
  context.textBaseline = "top";
  for (const { box, index, label } of objects) {
    const [left, top, right, bottom] = box.map((share, i) => share * sides[i % 2]);
    context.strokeStyle = `rgb(${colourOfClass(index + 1)})`; // none is black
    context.strokeRect(left, top, right - left, bottom - top);
    context.fillStyle = "rgb(0 0 0 / 70%)";
    context.fillRect(left, top, context.measureText(label).width + unit, 2.5 * unit);
    context.fillStyle = "white";
    context.fillText(label, left + unit / 2, top + unit / 4);
  }
}

function drawMask(canvas, size, found, place) {
  const context = clearOverlay(canvas, size);
  const { width, height } = canvas;
  const mask = maskOfPicture(found, [width, height], place);
  const image = context.createImageData(width, height);
  const colours = range(0, 256).map((index) => [...colourOfClass(index), MASK_OPACITY]);
  for (const [pixel, index] of mask.entries())
    image.data.set(colours[index], 4 * pixel);
  context.putImageData(image, 0, 0);
}
