const button = document.getElementById("toggle-code");
const cells = document.querySelectorAll("details.code");
button.hidden = cells.length === 0;
button.addEventListener("click", () => {
  const show = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", show);
  button.textContent = show ? "Hide all code" : "Show all code";
  cells.forEach((cell) => { cell.open = show; });
});
