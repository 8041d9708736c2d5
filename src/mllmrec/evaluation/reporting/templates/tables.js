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
// Copying: a table as CSV, intervals in columns of their own, or as LaTeX for the package booktabs.
const lines = (cell) => {
  const copy = cell.cloneNode(true);
  const small = [...copy.querySelectorAll("small")].map((part) => part.textContent.trim());
  copy.querySelectorAll("small").forEach((part) => part.remove());
  return [copy.textContent.trim(), small.join(" ")];
};
const grid = (table) => [...table.rows].map((row) => [...row.cells].map(lines));
const asCsv = (table) => {
  const rows = grid(table);
  const wide = rows[0].map((_, column) => rows.some((row) => row[column][1]));
  const named = rows.map((row, number) =>
    row.flatMap(([text, small], column) =>
      !wide[column] ? [text] : [text, number ? small : `${text} ${column ? "95 % interval" : "against"}`.trim()]));
  const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text);
  return named.map((row) => row.map((text) => quoted(text.replace(/−/g, "-"))).join(",") + "\n").join("");
};
const ESCAPES = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "−": "$-$", "–": "--", "<": "$<$", ">": "$>$" };
const tex = (text) => text.replace(/[\\~^−–<>&%$#_{}]/g, (sign) => ESCAPES[sign] || `\\${sign}`);
const asLatex = (table) => {
  const justify = table.classList.contains("left") ? "l" : "r";
  const rows = [...table.rows].map((row) => {
    const cells = [...row.cells].map((cell) => {
      const [text, small] = lines(cell);
      const shown = cell.classList.contains("strong") ? `\\textbf{${tex(text)}}` : tex(text);
      return small ? `${shown} {\\scriptsize ${tex(small)}}` : shown;
    });
    return `${cells.join(" & ")} \\\\`;
  });
  const foot = table.tFoot ? table.tFoot.rows.length : 0;
  const body = rows.slice(1, rows.length - foot);
  const rest = foot ? ["\\midrule", ...rows.slice(rows.length - foot)] : [];
  const columns = "l" + justify.repeat(table.rows[0].cells.length - 1);
  return [`\\begin{tabular}{${columns}}`, "\\toprule", rows[0], "\\midrule", ...body, ...rest, "\\bottomrule", "\\end{tabular}", ""].join("\n");
};
const copy = (text) => {
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  return copied;
};
for (const place of document.querySelectorAll(".copies")) {
  const table = place.closest(".sheet").querySelector("table");
  for (const [name, write] of [["CSV", asCsv], ["LaTeX", asLatex]]) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = `Copy ${name}`;
    button.addEventListener("click", () => {
      const copied = copy(write(table));
      button.textContent = copied ? "Copied" : "Copying is not allowed here";
      setTimeout(() => { button.textContent = `Copy ${name}`; }, 1500);
    });
    place.append(button);
  }
  place.classList.add("ready");
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
