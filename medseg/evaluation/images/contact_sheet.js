"use strict";
// Without this script all cases are shown as they are. The choice is kept in the address, so that it can be passed on.
const form = document.querySelector("form"), main = document.querySelector("main");
const cards = [...main.children];
const [filter, show, sort, turn] = ["filter", "show", "sort", "turn"].map(id => document.getElementById(id));

function compare(one, other, order, down) {
  const [a, b] = [one, other].map(card => JSON.parse(card.dataset.values)[order]);
  if (a === null || b === null) return (a === null) - (b === null); // what has no value comes last, always
  const difference = typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true });
  return down ? -difference : difference;
}

function apply() {
  const down = turn.value === "down", words = filter.value.toLowerCase().split(/\s+/);
  turn.textContent = down ? "Descending" : "Ascending";
  for (const card of cards) {
    const text = card.dataset.text;
    card.hidden = !words.every(word => text.includes(word)) || (show.value && !card.dataset.flags.split(" ").includes(show.value));
  }
  main.append(...cards.toSorted((one, other) => compare(one, other, sort.value, down)));
  form.querySelector("output").value = cards.filter(card => !card.hidden).length + " of " + cards.length + " shown";
  const state = new URLSearchParams({ filter: filter.value, show: show.value, sort: sort.value, turn: turn.value });
  history.replaceState(null, "", "#" + state);
}

const state = new URLSearchParams(location.hash.slice(1));
for (const input of [filter, show, sort, turn]) if (state.get(input.id)) input.value = state.get(input.id);
turn.addEventListener("click", () => { turn.value = turn.value === "down" ? "up" : "down"; apply(); });
sort.addEventListener("input", () => { turn.value = sort.value === "0" ? "up" : "down"; }); // names from A, sizes from the largest
form.addEventListener("submit", event => event.preventDefault());
form.addEventListener("input", apply);
form.hidden = false;
apply();
