// The page's side of the worker.
"use strict";

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

// Says what this browser lacks, or "".
function missingFeature() {
  const update = "Update the browser, or take another one.";
  if (typeof WebAssembly !== "object") {
    const state = "has no WebAssembly, or has it turned off, and the network needs it";
    return `This browser ${state}. ${update}`;
  }
  if (
    typeof DecompressionStream !== "function" ||
    typeof OffscreenCanvas !== "function"
  ) {
    return `This browser is too old for the page. ${update}`;
  }
  return "";
}

// Starts the worker with the files in the page's <script> elements of class "asset".
//
// Returns {ready, ask}: a promise, and an async function from a picture (a Blob or an
// ImageBitmap) to what the network answers. Both throw an Error with a text for people.
function startNetwork(config) {
  const source = document.getElementById("worker").textContent;
  const address = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const waiting = new Map(); // by id: {resolve, reject}
  let asked = 0;
  let worker;

  const ready = new Promise((resolve, reject) => {
    const missing = missingFeature();
    if (missing) throw new Error(missing);
    worker = new Worker(address);
    waiting.set(undefined, { resolve, reject });
    worker.onerror = (event) => reject(new Error(event.message));
    worker.onmessage = ({ data }) => {
      const { resolve, reject } = waiting.get(data.id);
      waiting.delete(data.id);
      if (data.error) reject(new Error(data.error));
      else resolve(data.answer);
    };
    const assets = {};
    for (const element of document.querySelectorAll("script.asset")) {
      assets[element.id] = element.textContent;
      element.remove(); // megabytes
    }
    worker.postMessage({ assets, config });
  });

  async function ask(picture) {
    await ready;
    return new Promise((resolve, reject) => {
      const id = ++asked;
      waiting.set(id, { resolve, reject });
      const moved = picture instanceof ImageBitmap ? [picture] : [];
      worker.postMessage({ id, picture }, moved);
    });
  }

  return { ready, ask };
}
