// Opening a case: an address that ends in #case-3 shows all that is known of the fourth case; going back closes it.
const known = JSON.parse(document.getElementById("case-data").textContent);
const sheet = document.createElement("dialog");
sheet.setAttribute("aria-labelledby", "case-title");
document.body.append(sheet);

function make(tag, attributes = {}, ...content) {
  const element = Object.assign(document.createElement(tag), attributes);
  element.append(...content);
  return element;
}

// All metrics of all classes; the longer of both goes down, so that it fits a phone.
function valueTable(one) {
  const values = one.values.map(line => line.split("\t")), across = known.classes.length > known.columns.length;
  const heads = across ? known.columns : known.classes, names = across ? known.classes : known.columns;
  const head = make("tr", {}, make("th", { scope: "col" }, across ? "class" : "metric"), ...heads.map(text => make("th", { scope: "col" }, text)));
  const rows = names.map((name, row) => make("tr", {}, make("th", { scope: "row" }, name),
    ...heads.map((_, column) => make("td", {}, across ? values[row][column] : values[column][row]))));
  const table = make("table", {}, make("caption", {}, "Metrics by class"), make("thead", {}, head), make("tbody", {}, ...rows));
  const box = make("div", { className: "scroll", tabIndex: 0 }, table);
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", "Metrics by class");
  return box;
}

// The cases before and after this one, as the table shows them now.
function neighbours(link) {
  const links = [...document.querySelectorAll("#cases tbody tr:not([hidden]) th a")].map(found => found.hash);
  const place = links.indexOf(link);
  return [links[place - 1], place < 0 ? undefined : links[place + 1]];
}

function button(text, target) {
  const found = make("button", { type: "button", className: "button", disabled: target === undefined }, text);
  found.addEventListener("click", () => { location.replace(target); });
  return found;
}

function show(number) {
  const one = known.cases[number], [before, after] = neighbours("#case-" + number);
  const close = make("button", { type: "button", className: "button" }, "Close");
  close.addEventListener("click", () => sheet.close());
  const facts = Object.entries(one.facts).filter(([, text]) => text !== "")
    .map(([name, text]) => make("div", {}, make("dt", {}, name), make("dd", {}, text)));
  const image = document.querySelector(`figure[data-case="${number}"] img`);
  sheet.replaceChildren(
    make("div", { className: "tools" }, close, button("Previous", before), button("Next", after)),
    make("h2", { id: "case-title" }, one.id), make("dl", {}, ...facts), ...(known.columns.length ? [valueTable(one)] : []),
    ...(known.isPart ? [make("p", { className: "note" }, "The other metrics are in cases.csv.")] : []),
    ...(image ? [make("figure", {}, image.cloneNode())] : []));
  if (!sheet.open) sheet.showModal();
  sheet.scrollTop = 0;
  close.focus();
}

function follow() {
  const found = /^#case-(\d+)$/.exec(location.hash);
  if (found && known.cases[found[1]]) show(Number(found[1]));
  else if (sheet.open) sheet.close();
}

let before = document.activeElement;
document.addEventListener("click", event => { if (!sheet.contains(event.target)) before = event.target.closest("a"); });
sheet.addEventListener("close", () => {
  if (/^#case-/.test(location.hash)) history.replaceState(null, "", location.href.split("#")[0]);
  if (before) before.focus({ preventScroll: true });
});
sheet.addEventListener("click", event => { if (event.target === sheet) sheet.close(); });
addEventListener("hashchange", follow);
follow();
