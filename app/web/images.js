// A file or a frame of the camera as RGB pixels.

const MAX_PIXELS = 16_777_216; // what Safari's canvas holds on a telephone; larger images are made smaller

/** Return the upright bitmap of an image file. Throws an Error, in one line, when it cannot be read. */
export async function decode(file) {
  try {
    return await createImageBitmap(file, { colorSpaceConversion: "none" }); // as Python leaves the colours
  } catch {
    const isHeic = /\.hei[cf]$/i.test(file.name) || /hei[cf]/.test(file.type);
    throw new Error(
      isHeic
        ? "This browser cannot read HEIC, the format of iPhones. Save the photo as JPEG, or use Safari."
        : `This browser cannot read ${file.name || "this file"} as an image. Try a JPEG or PNG file.`,
    );
  }
}

/** Paint a bitmap or the frame of a video on a canvas, which takes its size. */
export function paint(source, canvas) {
  const [width, height] = [source.videoWidth ?? source.width, source.videoHeight ?? source.height];
  const scale = Math.min(1, Math.sqrt(MAX_PIXELS / (width * height)));
  [canvas.width, canvas.height] = [Math.floor(width * scale), Math.floor(height * scale)];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white"; // where an image is transparent
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
}

/** Return the RGB image on a canvas, as resampling.js has it. */
export function readPixels(canvas) {
  const { width, height } = canvas;
  const rgba = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  const data = new Uint8Array(3 * width * height);
  for (let i = 0, o = 0; o < data.length; i += 4, o += 3) {
    data[o] = rgba[i];
    data[o + 1] = rgba[i + 1];
    data[o + 2] = rgba[i + 2];
  }
  return { data, width, height, channels: 3 };
}
