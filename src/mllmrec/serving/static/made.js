// The history that a visitor puts together: an ordered list to add to, reorder and take from, by pointer or keys.

import { announce, el } from "./dom.js";
import { poster } from "./items.js";
import { empty } from "./regions.js";

const KIND = "text/x-mllmrec-item";

/** Let an element be dragged into the history. */
export function draggable(node, id) {
  node.draggable = true;
  node.addEventListener("dragstart", (event) => {
    event.dataTransfer.setData(KIND, id);
    event.dataTransfer.effectAllowed = "copyMove";
  });
  return node;
}

const keysNote = () =>
  el("p.note.credit", {}, "Oldest first. Drag to reorder, or Alt with the arrow keys; Delete takes one out.");

/** The list; `set(ids)` is called with the ids of a changed history. */
export function madeHistory(set) {
  const list = el("ol.made-list", { "aria-label": "Your history, oldest first" });
  const node = el("div.made-drop", {}, list);
  let ids = [];
  let focused = null; // The row that takes the focus when the changed list is drawn.

  const place = (id, row, words) => {
    const rest = ids.filter((own) => own !== id);
    const before = ids.indexOf(id);
    rest.splice(before >= 0 && before < row ? row - 1 : row, 0, id);
    set(rest);
    announce(words);
  };
  const remove = (row, title) => {
    set(ids.filter((_, own) => own !== row));
    announce(`${title} is taken out.`);
    focused = row;
  };
  const shift = (row, step, title) => {
    const to = row + step;
    if (to < 0 || to >= ids.length) return;
    place(ids[row], step > 0 ? to + 1 : to, `${title} is now number ${to + 1} of ${ids.length}.`);
    focused = to;
  };

  const entry = (item, row, all) => {
    const button = (label, sign, act, disabled = false) =>
      el("button.icon", { type: "button", tabindex: "-1", "aria-label": label, onclick: act, disabled }, sign);
    const own = el(
      "li",
      {
        tabindex: row ? "-1" : "0",
        "aria-label": `${row + 1} of ${all.length}: ${item.title}`,
        onkeydown: (event) => keys(event, row, item.title),
      },
      el("span.place", {}, String(row + 1)),
      poster(item),
      el("span.title", {}, item.title),
      el(
        "span.tools",
        {},
        button(`Move ${item.title} up`, "↑", () => shift(row, -1, item.title), row === 0),
        button(`Move ${item.title} down`, "↓", () => shift(row, 1, item.title), row === all.length - 1),
        button(`Remove ${item.title}`, "×", () => remove(row, item.title)),
      ),
    );
    return draggable(own, item.item_id);
  };
  const keys = (event, row, title) => {
    if (event.target !== event.currentTarget) return;
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (step && event.altKey) shift(row, step, title);
    else if (step) list.children[row + step]?.focus();
    else if (event.key === "Delete" || event.key === "Backspace") remove(row, title);
    else return;
    event.preventDefault();
  };

  const rowAt = (y) => {
    const found = [...list.children].findIndex((own) => {
      const box = own.getBoundingClientRect();
      return y < box.top + box.height / 2;
    });
    return found < 0 ? ids.length : found;
  };
  const over = (event) => {
    if (!event.dataTransfer.types.includes(KIND)) return;
    event.preventDefault();
    node.classList.add("receiving");
    const row = rowAt(event.clientY);
    [...list.children].forEach((own, at) => own.classList.toggle("gap", at === row));
  };
  const clear = () => {
    node.classList.remove("receiving");
    for (const own of list.children) own.classList.remove("gap");
  };
  node.addEventListener("dragover", over);
  node.addEventListener("dragleave", clear);
  node.addEventListener("drop", (event) => {
    const id = event.dataTransfer.getData(KIND);
    clear();
    if (!id) return;
    event.preventDefault();
    const row = rowAt(event.clientY);
    place(id, row, `Placed at number ${Math.min(row + 1, ids.length + 1)}.`);
  });
  list.addEventListener("focusin", (event) => {
    for (const own of list.children) own.tabIndex = own.contains(event.target) ? 0 : -1;
  });

  const show = (items) => {
    ids = items.map((item) => item.item_id);
    list.replaceChildren(...items.map(entry));
    const words = "Take items from the catalogue, by a click or by dragging them here.";
    node.replaceChildren(...(items.length ? [list, keysNote()] : [empty("Your history is empty", words)]));
    if (focused !== null) list.children[Math.min(focused, items.length - 1)]?.focus();
    focused = null;
  };
  show([]);
  return { node, show };
}
