// What the page shows of faces: boxes over the image, and a card for each of them.

const percent = (share) => `${(100 * share).toFixed(0)}%`;

const UNSURE_COLOUR = "#e1e1e1"; // no emotion's

/** Return how many faces there are, in words. */
export function count(faces) {
  return faces.length === 1 ? "1 face" : `${faces.length} faces`;
}

/** Return how many faces there are and the answer for each, in words. */
export function summarise(faces) {
  return `${count(faces)}: ${faces.map((face) => (face.abstained ? "unsure" : face.label)).join(", ")}`;
}

/** Draw numbered boxes with answers on a canvas that lies over the image, whose size in pixels is given. */
export function drawBoxes(canvas, { faces, width, height, mirrored }, colours) {
  const [across, down] = [canvas.clientWidth, canvas.clientHeight];
  [canvas.width, canvas.height] = [across * devicePixelRatio, down * devicePixelRatio];
  const context = canvas.getContext("2d");
  context.scale(devicePixelRatio, devicePixelRatio);
  const boxes = faces.map(({ box }) => {
    const [left, w] = [box[0], box[2]].map((place) => (place * across) / width);
    const [top, h] = [box[1], box[3]].map((place) => (place * down) / height);
    return [mirrored ? across - left - w : left, top, w, h];
  });
  const inks = faces.map(({ label, abstained }) => (abstained ? UNSURE_COLOUR : colours[label]));
  // The largest comes first: its box lies on top, and its label has the first choice of a place.
  for (let i = faces.length - 1; i >= 0; i--) drawBox(context, boxes[i], inks[i]);
  const placed = [];
  faces.forEach(({ label, confidence, abstained }, i) => {
    const text = abstained ? "unsure" : `${label} ${percent(confidence)}`;
    const number = faces.length > 1 ? `${i + 1}` : "";
    const texts = [`${number} ${text}`.trim(), number];
    placed.push(drawLabel(context, texts, boxes[i], inks[i], placed, [across, down]));
  });
}

function drawBox(context, box, colour) {
  context.lineWidth = 5;
  context.strokeStyle = "#000"; // a dark edge, for light images
  context.strokeRect(...box);
  context.lineWidth = 3;
  context.strokeStyle = colour;
  context.strokeRect(...box);
}

/** Draw the first of two texts by a box, or the second where the first is too long; return its place. */
function drawLabel(context, [long, short], box, colour, placed, size) {
  context.font = "600 14px system-ui, sans-serif";
  context.textBaseline = "middle";
  const text = short && context.measureText(long).width > 1.8 * box[2] ? short : long;
  const place = placeLabel([context.measureText(text).width + 12, 22], box, placed, size);
  const [left, top, , down] = place;
  context.fillStyle = colour;
  context.fillRect(...place);
  context.fillStyle = isLight(colour) ? "#000" : "#fff";
  context.fillText(text, left + 6, top + down / 2 + 1);
  return place;
}

/** Return the box of a label near a face that meets none of those already placed, if there is room. */
export function placeLabel([across, down], [x, y, w, h], placed, [width, height]) {
  const lefts = [x - 2, x + w + 2 - across].map((left) => Math.max(0, Math.min(left, width - across)));
  const rows = Array.from({ length: Math.floor(height / down) }, (_, row) => row * down);
  rows.sort((one, other) => Math.abs(one - y) - Math.abs(other - y));
  const tops = [y - down, y, y + h, ...rows].filter((top) => top >= 0 && top + down <= height);
  const places = tops.flatMap((top) => lefts.map((left) => [left, top, across, down]));
  const isFree = (place) => !placed.some((other) => meets(place, other));
  return places.find(isFree) ?? places[0] ?? [lefts[0], 0, across, down];
}

function meets([left, top, across, down], [x, y, w, h]) {
  return left < x + w && x < left + across && top < y + h && y < top + down;
}

/** Return whether black stands out more than white from a hex colour: WCAG 2.2, relative luminance. */
function isLight(colour) {
  const [r, g, b] = [1, 3, 5].map((start) => {
    const share = parseInt(colour.slice(start, start + 2), 16) / 255;
    return share > 0.0392 ? ((share + 0.055) / 1.055) ** 2.4 : share / 12.92;
  });
  return (0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05) ** 2 > 1.05 * 0.05;
}

/** Fill a list with a card for every face: what the network sees, the answer, and a bar for each emotion. */
export function listFaces(list, { faces }, { emotions, colours }) {
  const cards = faces.map((face, i) => {
    const { label, confidence, abstained, inDoubt } = face;
    const answer = abstained ? `unsure (${label} ${percent(confidence)})` : `${label} ${percent(confidence)}`;
    const card = document.createElement("li");
    card.append(drawCrop(face.crop, `Face ${i + 1} as the network sees it`));
    card.append(make("h2", faces.length > 1 ? `${i + 1} ${answer}` : answer));
    card.append(listEmotions(face.probabilities, emotions, colours));
    if (inDoubt) card.append(make("p", "Which way up this face is stays in doubt."));
    return card;
  });
  list.replaceChildren(...cards);
}

function listEmotions(probabilities, emotions, colours) {
  const bars = document.createElement("ul");
  const ranked = emotions
    .map((emotion, i) => [emotion, probabilities[i]])
    .sort((one, other) => other[1] - one[1]);
  for (const [emotion, share] of ranked) {
    const row = document.createElement("li");
    const bar = make("span", "");
    bar.className = "bar";
    bar.append(make("span", ""));
    bar.firstChild.style.width = `${100 * share}%`;
    bar.firstChild.style.background = colours[emotion];
    row.append(make("span", emotion), bar, make("span", percent(share)));
    bars.append(row);
  }
  return bars;
}

function drawCrop({ data, width, height }, name) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", name);
  const pixels = new ImageData(width, height);
  data.forEach((grey, i) => pixels.data.set([grey, grey, grey, 255], 4 * i));
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

function make(name, textContent) {
  return Object.assign(document.createElement(name), { textContent });
}
