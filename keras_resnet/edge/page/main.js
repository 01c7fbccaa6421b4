// The page: pictures come in by drop, choice, paste, samples and the camera.
"use strict";

const config = JSON.parse(document.getElementById("config").textContent);
const part = (id) => document.getElementById(id);
const network = startNetwork(config);
const camera = makeCamera(part("video"), (frame) => show(frame, "Camera"));
const ANNOUNCED_EVERY = 2000; // milliseconds, of the camera's answers
let shown = 0; // the number of the picture that was asked for last
let announced = 0; // when a camera's answer was announced last

function tell(text) {
  part("status").textContent = text;
}

function complain(error) {
  part("problem").textContent = error ? error.message : "";
}

// Asks the network about a picture, and shows the answer.
async function show(picture, name) {
  const number = ++shown;
  const isFrame = picture instanceof ImageBitmap;
  if (!isFrame) tell(`Reading ${name} …`);
  try {
    const answer = await network.ask(picture);
    if (number !== shown) return; // another one came meanwhile
    complain(null);
    if (!isFrame) await showPicture(picture, name);
    showAnswer(answer, isFrame);
  } catch (error) {
    if (number !== shown) return;
    complain(new Error(`${name}: ${error.message}`));
    tell("");
  }
}

async function showPicture(picture, name) {
  const image = part("picture");
  URL.revokeObjectURL(image.src);
  image.src = URL.createObjectURL(picture);
  image.alt = name;
  part("stage").dataset.shows = "picture";
  await image.decode();
}

function showAnswer(answer, isFrame) {
  const { decode, resize, invoke } = answer.milliseconds;
  const text = SHOW[config.task](answer);
  const { width, height, data } = answer.seen;
  const seen = part("seen");
  [seen.width, seen.height] = [width, height];
  seen.getContext("2d").putImageData(new ImageData(data, width, height), 0, 0);
  part("times").textContent =
    `Network ${invoke.toFixed(1)} ms, reading ${decode.toFixed(1)} ms, ` +
    `resizing ${resize.toFixed(1)} ms`;
  part("answer").hidden = false;
  if (isFrame && Date.now() - announced < ANNOUNCED_EVERY) return;
  announced = Date.now();
  if (part("status").textContent !== text) tell(text);
}

// By task: shows what the network gives, and returns it as a sentence.
const SHOW = {
  classify({ outputs: [scores] }) {
    const classes = bestClasses(scores.data, config);
    showBars(part("scores"), classes);
    return classesText(classes, config);
  },
  detect(answer) {
    const objects = objectsOf(answer);
    drawObjects(part("overlay"), answer.size, objects);
    showBars(part("scores"), objects);
    return objectsText(objects);
  },
  segment({ outputs: [output], place, size }) {
    const found = bestPixels(output);
    const shares = regions(found, size, place, config.labels);
    drawMask(part("overlay"), size, found, place);
    showBars(part("scores"), shares);
    return shares.map(withPercent).join("; ");
  },
};

function objectsOf({ outputs, place }) {
  const { anchors, boxScales, places } = config.boxes;
  const [offsets, scores] = outputs.map(({ data }) => data);
  const found = places
    ? objectsOfOperator(outputs, places)
    : findObjects(
        offsets,
        scores,
        new Float32Array(bytesOf(anchors).buffer),
        boxScales,
      );
  return shownObjects(found, config.labels, place);
}

function takeFile(file) {
  stopCamera();
  if (file) show(file, file.name || "Pasted picture");
}

function takeTransfer(transfer) {
  const file = transfer.files[0];
  if (file) return takeFile(file);
  complain(new Error("That is no picture: drop or paste an image file."));
}

async function startCamera(start) {
  complain(null);
  try {
    await network.ready;
    await start();
    part("stage").dataset.shows = "video";
    part("camera-start").hidden = true;
    part("camera-buttons").hidden = false;
    part("camera-stop").focus();
  } catch (error) {
    stopCamera();
    complain(error);
  }
}

function stopCamera() {
  camera.close();
  shown++; // the last frame's answer comes too late
  if (part("stage").dataset.shows === "video") part("stage").dataset.shows = "";
  part("camera-start").hidden = false;
  part("camera-buttons").hidden = true;
}

function makeSamples() {
  for (const { name, content } of config.samples) {
    const blob = new Blob([bytesOf(content)]);
    const [item, button, image] = ["li", "button", "img"].map((tag) =>
      document.createElement(tag),
    );
    image.src = URL.createObjectURL(blob);
    image.alt = name;
    button.type = "button";
    button.append(image);
    button.addEventListener("click", () => {
      stopCamera();
      show(blob, name);
    });
    item.append(button);
    part("samples").append(item);
  }
}

function listen() {
  part("file").addEventListener("change", ({ target }) => {
    takeFile(target.files[0]);
    target.value = ""; // the same file may be chosen again
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dragged");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dragged");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dragged");
    takeTransfer(event.dataTransfer);
  });
  document.addEventListener("paste", (event) => takeTransfer(event.clipboardData));
  part("camera-start").addEventListener("click", () => startCamera(camera.open));
  part("camera-turn").addEventListener("click", () => startCamera(camera.turn));
  part("camera-stop").addEventListener("click", () => {
    stopCamera();
    part("camera-start").focus();
  });
}

makeSamples();
listen();
network.ready.then(
  () => {
    performance.mark("ready");
    document.documentElement.dataset.state = "ready";
    if (!shown) tell("Ready. Choose a picture.");
  },
  (error) => {
    document.documentElement.dataset.state = "failed";
    tell("");
    complain(error);
  },
);
