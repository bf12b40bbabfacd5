// Conveniences of a report. Without JavaScript the page still shows everything it has to say.

// The page reads as a text until its code is asked for.
function offerToShowCode() {
  const button = document.getElementById("toggle-code");
  const cells = document.querySelectorAll("details.code");
  if (!cells.length) return;
  document.body.classList.add("without-code");
  button.hidden = false;
  button.addEventListener("click", () => {
    const isHidden = document.body.classList.toggle("without-code");
    button.setAttribute("aria-pressed", !isHidden);
    button.textContent = isHidden ? "Show the code" : "Hide the code";
    cells.forEach((cell) => { cell.open = !isHidden; });
  });
}

// `pages.js`, which the index writes, lists the pages that exist: a page cannot know it when it is made.
function linkNeighbours() {
  const pages = window.reportPages ?? [];
  const here = pages.findIndex(({ name }) => name === document.body.dataset.page);
  if (here < 0) return;
  for (const [rel, page] of [["prev", pages[here - 1]], ["next", pages[here + 1]]]) {
    const link = document.querySelector(`footer a[rel=${rel}]`);
    if (!link || !page) continue;
    link.href = `${page.name}.html`;
    link.textContent = rel === "prev" ? `← ${page.title}` : `${page.title} →`;
    link.hidden = false;
  }
}

// `charts.js` brings Vega; where it is not beside the reports, the images stay.
function showCharts() {
  if (!window.vegaEmbed) return;
  for (const spec of document.querySelectorAll(`script[type="application/vnd.vegalite+json"]`)) {
    const image = spec.parentElement.querySelector("img");
    const chart = document.createElement("div");
    chart.className = "chart";
    chart.setAttribute("role", "group");
    chart.setAttribute("aria-label", image.alt);
    spec.before(chart);
    const place = chart.appendChild(document.createElement("div")); // Vega takes all of its width, padding too
    window.vegaEmbed(place, JSON.parse(spec.textContent), { actions: false, renderer: "svg" })
      .then(() => image.classList.add("in-print"), () => chart.remove());
  }
}

// The number that a cell begins with, as in `+1.4 [-0.2, 2.9]` or `28,709`; NaN of any other text.
const readNumber = (text) => parseFloat(text.replace(/[,\s]/g, "").replace("−", "-"));

function sortTables() {
  for (const table of document.querySelectorAll(".table table")) {
    const body = table.tBodies[0];
    if (body.rows.length < 3) continue;
    for (const head of table.tHead.querySelectorAll("th")) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        // Numbers start with the largest, words with the first of the alphabet.
        const before = head.getAttribute("aria-sort");
        const isNumber = head.classList.contains("number");
        const first = isNumber ? "descending" : "ascending";
        const order = before === first ? (isNumber ? "ascending" : "descending") : first;
        const sign = order === "ascending" ? 1 : -1;
        const rows = [...body.rows].map((row) => ({ row, text: row.cells[head.cellIndex].textContent.trim() }));
        rows.sort((a, b) => compareTexts(a.text, b.text, sign));
        body.append(...rows.map(({ row }) => row));
        for (const other of table.tHead.querySelectorAll("th")) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", order);
      });
    }
  }
}

// What is empty stays at the end, whichever way the table is sorted.
function compareTexts(a, b, sign) {
  const isEmpty = (text) => text === "" || text === "–";
  if (isEmpty(a) || isEmpty(b)) return isEmpty(a) - isEmpty(b);
  const [x, y] = [readNumber(a), readNumber(b)];
  return sign * (Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, "en", { numeric: true }) : x - y);
}

offerToShowCode();
linkNeighbours();
showCharts();
sortTables();
