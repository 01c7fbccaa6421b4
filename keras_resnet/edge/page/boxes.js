// From the outputs of a detector to its boxes: keras_resnet/runner/detections.py and
// boxes.py in JavaScript, with the same rounding to 32 bits.
"use strict";

const MIN_SCORE = Math.fround(0.05); // lower ones are no detections
const MAX_IOU = 0.5; // of two boxes with a larger IoU, one is suppressed
const MAX_DETECTIONS = 100;
const SHOWN_SCORE = 0.4; // as the runner shows them

// Returns [{box, index, score}], the highest score first; a box is [top, left, bottom,
// right], shares of the input. `anchors` holds y, x, height and width of each.
function findObjects(offsets, scores, anchors, scales) {
  const count = anchors.length / 4;
  const classes = scores.length / count;
  const possible = [];
  for (let anchor = 0; anchor < count; anchor++) {
    let index = 0;
    for (let other = 1; other < classes; other++) {
      if (scores[anchor * classes + other] > scores[anchor * classes + index])
        index = other;
    }
    const score = scores[anchor * classes + index];
    if (score >= MIN_SCORE) possible.push({ anchor, index, score });
  }
  possible.sort((a, b) => b.score - a.score || a.anchor - b.anchor);
  const kept = [];
  for (const { anchor, index, score } of possible) {
    const box = decodedBox(offsets, anchors, 4 * anchor, scales);
    if (kept.some((other) => iou(box, other.box) > MAX_IOU)) continue;
    kept.push({ box, index, score });
    if (kept.length === MAX_DETECTIONS) break;
  }
  return kept;
}

// The same from the four outputs of TFLite_Detection_PostProcess; `places` says where
// boxes, classes, scores and their number are.
function objectsOfOperator(outputs, places) {
  const [boxes, classes, scores, [count]] = places.map((place) => outputs[place].data);
  return range(0, count)
    .map((i) => ({
      box: boxes.subarray(4 * i, 4 * i + 4),
      index: Math.round(classes[i]),
      score: scores[i],
    }))
    .sort((a, b) => b.score - a.score);
}

function decodedBox(offsets, anchors, at, scales) {
  const [y, x, height, width] = [0, 1, 2, 3].map((i) => offsets[at + i] / scales[i]);
  const [anchorY, anchorX, anchorHeight, anchorWidth] = anchors.subarray(at, at + 4);
  const centre = [y * anchorHeight + anchorY, x * anchorWidth + anchorX];
  const half = [
    (Math.exp(height) * anchorHeight) / 2,
    (Math.exp(width) * anchorWidth) / 2,
  ];
  return [
    centre[0] - half[0],
    centre[1] - half[1],
    centre[0] + half[0],
    centre[1] + half[1],
  ].map(Math.fround);
}

function area([top, left, bottom, right]) {
  return Math.fround(Math.fround(bottom - top) * Math.fround(right - left));
}

function iou(one, other) {
  const down = Math.fround(Math.min(one[2], other[2]) - Math.max(one[0], other[0]));
  const across = Math.fround(Math.min(one[3], other[3]) - Math.max(one[1], other[1]));
  const shared = Math.fround(Math.max(down, 0) * Math.max(across, 0));
  if (!(shared > 0)) return 0;
  const both = Math.fround(area(one) + area(other));
  return Math.fround(shared / Math.fround(both - shared));
}

// One sentence for people who do not see the boxes.
function objectsText(objects) {
  if (!objects.length) return `Nothing found with a score of ${percent(SHOWN_SCORE)}.`;
  return `${objects.length} found: ${objects.map(withPercent).join("; ")}`;
}

// The objects to show, [{label, index, score, box}]; a box is now [left, top, right,
// bottom] as shares of the picture, which lies at `place` in the input.
function shownObjects(found, labels, [left, top, right, bottom]) {
  const inPicture = (share, low, high) =>
    Math.min(1, Math.max(0, (share - low) / (high - low)));
  return (
    found
      .filter(({ score }) => score >= SHOWN_SCORE)
      .map(({ box, index, score }) => ({
        index,
        score,
        label: labels?.[index] ?? `class ${index}`,
        box: [
          inPicture(box[1], left, right),
          inPicture(box[0], top, bottom),
          inPicture(box[3], left, right),
          inPicture(box[2], top, bottom),
        ],
      }))
      // Around the picture, where the input is padded, there is nothing.
      .filter(({ box }) => box[0] < box[2] && box[1] < box[3])
  );
}
