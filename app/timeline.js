// Draws each person's emotions over time, and goes with the page's video: a click seeks, a line follows.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 1000; // of a row's own coordinates; its height is 1
const NEAR = 0.6; // seconds from a person's nearest value, within which they are in view
const stops = new WeakMap();
const hovers = new WeakMap(); // where the pointer is, as a share of the width; kept as new data comes

export default function ({ data, parentElement }) {
  stops.get(parentElement)?.();
  const find = (name) => parentElement.querySelector(`.${name}`);
  const plot = find("plot");
  const player = () => (data.seeks ? document.querySelector('[data-testid="stVideo"]') : null);
  const span = data.end - data.start;
  const place = (time) => `${(100 * (time - data.start)) / span}%`;

  find("legend").replaceChildren(
    ...data.emotions.map(({ name, colour }) => {
      const entry = build("span", name);
      entry.style.setProperty("--colour", colour);
      return entry;
    }),
  );
  find("names").replaceChildren(...data.rows.map((row) => build("div", row.name)));
  find("rows").replaceChildren(...data.rows.map((row) => drawRow(row, data)));
  find("axis").replaceChildren(
    ...listTicks(data).map((time) => {
      const tick = build("span", describeTime(time, data));
      tick.style.left = place(time);
      tick.className = time === data.start ? "first" : time === data.end ? "last" : "";
      return tick;
    }),
  );
  const readouts = data.rows.map(() => build("div", ""));
  find("readout").replaceChildren(...readouts);
  find("note").textContent = data.note;

  plot.setAttribute("aria-label", data.label);
  plot.setAttribute("role", data.seeks ? "slider" : "img");
  if (data.seeks) {
    plot.tabIndex = 0;
    plot.setAttribute("aria-valuemin", data.start);
    plot.setAttribute("aria-valuemax", data.end);
  }

  const seek = (time) => {
    const video = player();
    if (video) video.currentTime = Math.min(Math.max(time, data.start), data.end);
  };
  const read = (event) => {
    const box = plot.getBoundingClientRect();
    return data.start + (span * Math.min(Math.max(event.clientX - box.left, 0), box.width)) / box.width;
  };
  plot.onpointermove = (event) => hovers.set(parentElement, (read(event) - data.start) / span);
  plot.onpointerleave = () => hovers.delete(parentElement);
  plot.onclick = (event) => seek(read(event));
  plot.onkeydown = (event) => {
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 };
    const now = player()?.currentTime ?? 0;
    const goals = { Home: data.start, End: data.end };
    const goal = event.key in steps ? now + steps[event.key] : goals[event.key];
    if (goal === undefined) return;
    event.preventDefault();
    seek(goal);
  };

  let shown = null;
  let frame = 0;
  const follow = () => {
    const video = player();
    const now = video?.currentTime ?? data.end;
    const hovered = hovers.get(parentElement);
    const time = hovered === undefined ? now : data.start + span * hovered;
    if (shown !== `${time} ${now}`) {
      shown = `${time} ${now}`;
      find("cursor").style.left = place(Math.min(now, data.end));
      find("cursor").hidden = !video;
      find("hover").style.left = place(time);
      find("hover").hidden = hovered === undefined;
      data.rows.forEach((row, index) => { readouts[index].textContent = describeRow(row, time, data); });
      if (data.seeks) {
        plot.setAttribute("aria-valuenow", now.toFixed(1));
        plot.setAttribute("aria-valuetext", describeTime(now, data, 1));
      }
    }
    frame = requestAnimationFrame(follow);
  };
  follow();
  const stop = () => cancelAnimationFrame(frame);
  stops.set(parentElement, stop);
  return stop;
}

function build(tag, text) {
  const element = document.createElement(tag);
  element.textContent = text;
  return element;
}

/** Return a row: each emotion's area, as high as its probability, on top of those before it. */
function drawRow(row, data) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} 1`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  for (const { times, values } of row.visits) {
    const xs = times.map((time) => (WIDTH * (time - data.start)) / (data.end - data.start));
    let below = times.map(() => 0);
    data.emotions.forEach(({ colour }, emotion) => {
      const above = below.map((sum, index) => sum + values[index][emotion]);
      const there = xs.map((x, index) => `${x},${1 - above[index]}`);
      const back = xs.map((x, index) => `${x},${1 - below[index]}`).reverse();
      const area = document.createElementNS(SVG, "polygon");
      area.setAttribute("points", [...there, ...back].join(" "));
      area.setAttribute("fill", colour);
      svg.append(area);
      below = above;
    });
  }
  return svg;
}

/** Return `0:03.2 · #1: happy 84%, neutral 9%`, the three likeliest. */
function describeRow(row, time, data) {
  let nearest = null;
  let distance = NEAR;
  for (const { times, values } of row.visits) {
    times.forEach((other, index) => {
      if (Math.abs(other - time) <= distance) {
        distance = Math.abs(other - time);
        nearest = values[index];
      }
    });
  }
  const start = `${describeTime(time, data, 1)} · ${row.name}: `;
  if (!nearest) return `${start}not in view`;
  const sorted = data.emotions.map(({ name }, index) => [nearest[index], name]).sort((a, b) => b[0] - a[0]);
  const likely = sorted.slice(0, 3).filter(([value]) => value >= 0.01);
  return start + likely.map(([value, name]) => `${name} ${Math.round(100 * value)}%`).join(", ");
}

/** Return times for the axis, at most six. */
function listTicks({ start, end }) {
  const step = [0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600].find((size) => (end - start) / size <= 5) ?? end - start;
  const first = Math.ceil(start / step);
  return Array.from({ length: Math.floor(end / step) - first + 1 }, (_, index) => (first + index) * step);
}

/** Return 1:05, or −30 s where the end is now. */
function describeTime(time, { end }, digits = time % 1 ? 1 : 0) {
  if (time === 0 && end === 0) return "now";
  if (time < 0) return `\u2212${(-time).toFixed(digits)} s`;
  const rounded = Number(time.toFixed(digits)); // first, or 59.97 would be 0:60.0
  const minutes = Math.floor(rounded / 60);
  return `${minutes}:${(rounded - 60 * minutes).toFixed(digits).padStart(digits ? 3 + digits : 2, "0")}`;
}
