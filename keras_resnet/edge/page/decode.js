// From a picture to its pixels: {data, width, height}, RGBA bytes. Colours are not
// managed and alpha is dropped, as Pillow does. A JPEG is always decoded whole; the
// runner may decode a large one at a half, quarter or eighth of its size.
"use strict";

const STRIP = 512; // rows that are read at once: canvases of phones are limited

// The picture is a Blob, or an ImageBitmap of the camera.
async function decodePicture(picture) {
  let bitmap = picture;
  if (picture instanceof Blob) {
    try {
      bitmap = await createImageBitmap(picture, {
        colorSpaceConversion: "none",
        premultiplyAlpha: "none",
      });
    } catch {
      const what = picture.size ? "no picture that this browser can read" : "empty";
      throw new Error(
        `The file is ${what}. Choose a JPEG, PNG, WebP, GIF or BMP file.`,
      );
    }
  }
  const { width, height } = bitmap;
  try {
    if (width * height > MAX_PIXELS) {
      const most = (MAX_PIXELS / 1e6).toFixed(0);
      throw new Error(
        `${width} x ${height} pixels are too many: choose a picture of at most ` +
          `${most} million.`,
      );
    }
    return await pixelsOf(bitmap);
  } finally {
    bitmap.close();
  }
}

async function pixelsOf(bitmap) {
  const { width, height } = bitmap;
  const image = blank(width, height);
  const canvas = new OffscreenCanvas(width, Math.min(height, STRIP));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  for (let top = 0; top < height; top += STRIP) {
    const rows = Math.min(STRIP, height - top);
    context.clearRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, -top);
    let { data } = context.getImageData(0, 0, width, rows);
    if (!isOpaque(data)) data = await transparentStrip(bitmap, top, rows);
    image.data.set(data, 4 * width * top);
  }
  return image;
}

function isOpaque(data) {
  for (let i = 3; i < data.length; i += 4) if (data[i] !== 255) return false;
  return true;
}

// A 2D canvas multiplies colours by alpha and so forgets them; WebGL keeps them.
async function transparentStrip(bitmap, top, rows) {
  const { width } = bitmap;
  const canvas = new OffscreenCanvas(1, 1);
  const gl = canvas.getContext("webgl");
  if (!gl || width > gl.getParameter(gl.MAX_TEXTURE_SIZE)) {
    throw new Error(
      "This browser cannot read pictures with transparent parts exactly. Save it " +
        "without transparency.",
    );
  }
  const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const strip = await createImageBitmap(bitmap, 0, top, width, rows, options);
  gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, strip);
  strip.close();
  gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
  const attachment = gl.COLOR_ATTACHMENT0;
  const texture = gl.getParameter(gl.TEXTURE_BINDING_2D);
  gl.framebufferTexture2D(gl.FRAMEBUFFER, attachment, gl.TEXTURE_2D, texture, 0);
  const data = new Uint8Array(4 * width * rows);
  gl.readPixels(0, 0, width, rows, gl.RGBA, gl.UNSIGNED_BYTE, data);
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  return data;
}
