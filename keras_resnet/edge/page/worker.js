// The worker: it holds the runtime and the model, so that the page never freezes.
//
// It is sent {assets, config} once and answers {ready}. Then it is sent {id, picture}
// and answers {id, answer} or {id, error}.
"use strict";

let model; // of LiteRT
let runtime; // the module @litertjs/core
let config;

// From gzip in base64 to a Blob.
async function unpacked(text) {
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
  const stream = new Blob([bytes])
    .stream()
    .pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).blob();
}

function scriptAddress(parts) {
  return URL.createObjectURL(new Blob(parts, { type: "text/javascript" }));
}

async function load(assets) {
  const names = Object.keys(assets);
  const blobs = await Promise.all(names.map((name) => unpacked(assets[name])));
  const files = Object.fromEntries(names.map((name, i) => [name, blobs[i]]));
  const helpers = scriptAddress([files.helpers]);
  const core = (await files.core.text()).replace(
    '"@litertjs/wasm-utils"',
    `"${helpers}"`,
  );
  runtime = await import(scriptAddress([core]));
  // WebGPU gives wrong scores for quantized models; without an adapter it is not tried.
  Object.defineProperty(navigator, "gpu", {
    value: { requestAdapter: async () => null },
  });
  self.Module = {
    wasmBinary: await files.wasm.arrayBuffer(),
    printErr() {}, // what it is about to do
  };
  // It wants an address that ends in .js.
  await runtime.loadLiteRt(scriptAddress([files.loader]) + "#.js");
  const content = new Uint8Array(await files.model.arrayBuffer());
  model = await runtime.loadAndCompile(content, { accelerator: "wasm" });
}

// The values of the input tensor for the pixels of an image.
function inputValues({ data }) {
  const { mean, std, dtype } = config.input;
  const values = new (dtype === "uint8" ? Uint8Array : Float32Array)(
    (data.length / 4) * 3,
  );
  for (let from = 0, to = 0; from < data.length; from += 4) {
    for (let channel = 0; channel < 3; channel++, to++) {
      const pixel = data[from + channel];
      values[to] = mean ? (pixel - mean[channel]) / std[channel] : pixel;
    }
  }
  return values;
}

// Runs the model once; returns its outputs as real numbers, {data, shape} each.
async function run(image) {
  const [height, width] = config.preprocessing.inputSize;
  const input = new runtime.Tensor(inputValues(image), [1, height, width, 3]);
  let tensors = [];
  try {
    tensors = await model.run([input]);
    return await Promise.all(
      tensors.map(async (tensor, i) => {
        const data = dequantized(await tensor.data(), config.outputs[i]);
        return { data, shape: config.outputs[i].shape };
      }),
    );
  } finally {
    for (const tensor of [input, ...tensors]) tensor.delete();
  }
}

// In 32 bits, as the runner does.
function dequantized(values, { scale, zeroPoint }) {
  const data = Float32Array.from(
    values,
    scale ? (value) => value - zeroPoint : undefined,
  );
  if (scale) for (let i = 0; i < data.length; i++) data[i] *= Math.fround(scale);
  if (!data.every(Number.isFinite)) {
    throw new Error("The model gave scores that are not finite numbers.");
  }
  return data;
}

async function answer(picture) {
  const times = [performance.now()];
  const image = await decodePicture(picture);
  times.push(performance.now());
  const seen = resizeAndCrop(image, config.preprocessing);
  times.push(performance.now());
  const outputs = await run(seen);
  times.push(performance.now());
  const [decode, resize, invoke] = [0, 1, 2].map((i) => times[i + 1] - times[i]);
  const size = [image.width, image.height];
  const place = placement(size, config.preprocessing);
  return { outputs, seen, size, place, milliseconds: { decode, resize, invoke } };
}

self.onmessage = async ({ data }) => {
  try {
    if (data.assets) {
      config = data.config;
      await load(data.assets);
      postMessage({ ready: true });
    } else {
      postMessage({ id: data.id, answer: await answer(data.picture) });
    }
  } catch (error) {
    postMessage({ id: data.id, error: error.message ?? String(error) });
  }
};
