"use strict";
// What every page does. Without scripts all is there, unsorted and unfiltered.

const numberOf = text => parseFloat(text.replace("−", "-").replace(/[<≤,]/g, ""));

// Order of two cells by what is written in them; a cell without a value comes last, whatever the direction.
function compareCells(one, other, isText, down) {
  const [a, b] = [one, other].map(cell => isText ? cell.textContent.trim() : numberOf(cell.textContent));
  const [isNone, isOtherNone] = [a, b].map(value => isText ? ["", "–"].includes(value) : Number.isNaN(value));
  if (isNone || isOtherNone) return isNone - isOtherNone;
  const difference = isText ? a.localeCompare(b, "en", { numeric: true }) : a - b;
  return down ? -difference : difference;
}

function sortBy(table, place, down) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const isText = heads[place].classList.contains("text");
  body.append(...[...body.rows].sort((one, other) => compareCells(one.cells[place], other.cells[place], isText, down)));
  for (const head of heads) head.removeAttribute("aria-sort");
  heads[place].setAttribute("aria-sort", down ? "descending" : "ascending");
}

// A button in each header; the first click sorts upwards, a second one turns the order.
function makeSortable(table) {
  [...table.tHead.rows[0].cells].forEach((head, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sortBy(table, place, head.getAttribute("aria-sort") === "ascending"));
    head.append(button);
  });
}

// An input above the table; rows that have all its words are shown.
function makeFilterable(table) {
  const box = document.createElement("div"), label = document.createElement("label");
  const input = document.createElement("input"), shown = document.createElement("output");
  box.className = "filter";
  input.type = "search";
  shown.setAttribute("aria-live", "polite");
  label.append("Show rows with", input);
  box.append(label, shown);
  const rows = [...table.tBodies[0].rows], texts = rows.map(row => row.textContent.toLowerCase());
  const apply = () => {
    const words = input.value.toLowerCase().split(/\s+/);
    rows.forEach((row, place) => { row.hidden = !words.every(word => texts[place].includes(word)); });
    shown.value = rows.filter(row => !row.hidden).length + " of " + rows.length + " shown";
  };
  input.addEventListener("input", apply);
  apply();
  table.closest(".table").prepend(box);
}

document.querySelectorAll("table[data-sortable]").forEach(makeSortable);
document.querySelectorAll("table[data-filterable]").forEach(makeFilterable);

// In print, what is folded is open.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const part of opened) part.open = true;
});
addEventListener("afterprint", () => { for (const part of opened) part.open = false; });
