// The answer of a classifier: the best classes and their scores.
"use strict";

const SHOWN = 5; // classes

// The best classes, [{index, label, score}]; of equal scores, the lowest index comes
// first. A model for several labels gives those that reach its threshold, maybe none.
function bestClasses(scores, { labels, threshold }) {
  const order = Array.from(scores.keys()).sort(
    (a, b) => scores[b] - scores[a] || a - b,
  );
  return order
    .slice(0, SHOWN)
    .filter((index) => threshold === null || scores[index] >= threshold)
    .map((index) => ({ index, label: labels[index], score: scores[index] }));
}

function percent(score) {
  return `${(100 * score).toFixed(1)}%`;
}

// Fills the list with one bar for each class, object or region.
function showBars(list, found) {
  list.replaceChildren(
    ...found.map(({ label, score }) => {
      const [item, name, share, bar] = ["li", "span", "span", "span"].map((tag) =>
        document.createElement(tag),
      );
      name.textContent = label;
      name.className = "label";
      share.textContent = percent(score);
      share.className = "share";
      bar.className = "bar";
      bar.style.width = `${100 * Math.min(1, Math.max(0, score))}%`;
      item.append(name, " ", share, bar);
      return item;
    }),
  );
}

function withPercent({ label, score }) {
  return `${label}, ${percent(score)}`;
}

// One sentence for people who do not see the bars.
function classesText(classes, { threshold }) {
  if (!classes.length) return `No label reaches ${percent(threshold)}.`;
  if (threshold === null) return withPercent(classes[0]);
  return classes.map(withPercent).join("; ");
}
