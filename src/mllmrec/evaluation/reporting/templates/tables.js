"use strict";
// Sorting: a header becomes a button; numbers sort by size, the greatest first, words by the alphabet.
const amount = (text) => {
  const found = text.replace(/,/g, "").replace(/−/g, "-").match(/^[+<\s]*(-?\d+(?:\.\d+)?)/);
  return found ? parseFloat(found[1]) : null;
};
const shown = (row, column) => {
  const cell = row.cells[column];
  return (cell.firstChild ? cell.firstChild.textContent : "").trim();
};
const sortBy = (table, column, header) => {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const numeric = rows.every((row) => !shown(row, column) || amount(shown(row, column)) !== null);
  const before = header.getAttribute("aria-sort");
  const direction = before ? (before === "descending" ? "ascending" : "descending") : numeric ? "descending" : "ascending";
  const sign = direction === "ascending" ? 1 : -1;
  const key = (row) => (numeric ? amount(shown(row, column)) : shown(row, column).toLowerCase());
  const compare = (a, b) => {
    const [one, other] = [key(a), key(b)];
    if (one === null || other === null) return (one === null) - (other === null);
    return sign * (numeric ? one - other : one.localeCompare(other));
  };
  rows.sort(compare).forEach((row) => body.append(row));
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", direction);
};
for (const table of document.querySelectorAll("table[data-sortable]")) {
  if (table.tBodies[0].rows.length < 2) continue;
  [...table.tHead.rows[0].cells].forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () => sortBy(table, column, header));
    header.append(button);
  });
}
// On paper nothing can be unfolded, so everything is.
addEventListener("beforeprint", () => {
  for (const fold of document.querySelectorAll("details:not([open])")) {
    fold.open = true;
    fold.dataset.folded = "";
  }
});
addEventListener("afterprint", () => {
  for (const fold of document.querySelectorAll("details[data-folded]")) {
    fold.open = false;
    delete fold.dataset.folded;
  }
});
