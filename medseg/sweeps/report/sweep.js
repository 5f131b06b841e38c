// Pointing at a job, by its line in a plot or its row in a table, names it and marks it everywhere; a click holds it.
const LINE = 'a[href^="#job-"]', ROW = 'tr[id^="job-"]';
let held = "";

function mark(address) {
  let name = "Point at a line or a row to see which job it is; click to hold it.";
  for (const line of document.querySelectorAll(".plot " + LINE)) {
    const isMarked = line.getAttribute("href") === address;
    line.classList.toggle("marked", isMarked);
    if (!isMarked) continue;
    name = line.querySelector("title").textContent;
    if (line.nextElementSibling) line.parentNode.append(line);  // in front of the others
  }
  for (const row of document.querySelectorAll(ROW)) row.classList.toggle("marked", "#" + row.id === address);
  for (const output of document.querySelectorAll("output.named")) output.value = name;
}

// The job at a place: lines are thin, so that the nearest up to 7 px away counts.
function addressAt(event) {
  if (!event.target.closest(".plot")) {
    const row = event.target.closest(ROW);
    return row ? "#" + row.id : "";
  }
  for (let far = 0; far < 8; far++) {
    for (const [x, y] of [[0, far], [0, -far], [far, 0], [-far, 0]]) {
      const line = document.elementFromPoint(event.clientX + x, event.clientY + y)?.closest(LINE);
      if (line) return line.getAttribute("href");
    }
  }
  return "";
}

mark(held);
addEventListener("pointermove", event => mark(addressAt(event) || held));
addEventListener("focusin", event => mark(event.target.matches(LINE) ? event.target.getAttribute("href") : held));
addEventListener("click", event => {
  const address = addressAt(event);
  if (event.target.closest(LINE)) event.preventDefault();  // stay at the plot
  if (address || event.target.closest(".plot")) held = address === held ? "" : address;
  mark(held);
});
