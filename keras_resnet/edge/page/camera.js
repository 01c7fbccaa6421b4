// The camera: it gives one frame after the other until it is stopped.
"use strict";

const CAMERA_PROBLEMS = {
  NotAllowedError:
    "The camera was refused. Allow it for this page in the browser's settings, or " +
    "choose a picture.",
  NotFoundError: "No camera was found. Connect one, or choose a picture.",
  OverconstrainedError: "No such camera was found. Choose a picture.",
  NotReadableError:
    "The camera is used by another program. Close it, or choose a picture.",
};

// `onFrame` is an async function of an ImageBitmap; the next frame waits for it.
function makeCamera(video, onFrame) {
  let stream = null;
  let facing = "environment"; // the camera at the back of a phone

  async function open() {
    if (!navigator.mediaDevices) {
      throw new Error(
        "The browser gives the camera only to pages from https:// or from disk. " +
          "Choose a picture.",
      );
    }
    try {
      stream = await navigator.mediaDevices.getUserMedia({
        video: { facingMode: facing },
      });
    } catch (error) {
      throw new Error(
        CAMERA_PROBLEMS[error.name] ?? `The camera failed: ${error.message}`,
      );
    }
    video.srcObject = stream;
    await video.play();
    frames(stream);
  }

  async function frames(own) {
    while (stream === own) {
      // Nothing happens while the page is hidden.
      await new Promise((resolve) => requestAnimationFrame(resolve));
      if (stream === own && video.videoWidth)
        await onFrame(await createImageBitmap(video));
    }
  }

  function close() {
    for (const track of stream?.getTracks() ?? []) track.stop();
    stream = null;
    video.srcObject = null;
  }

  async function turn() {
    close();
    facing = facing === "user" ? "environment" : "user";
    await open();
  }

  return { open, close, turn, isOpen: () => stream !== null };
}
