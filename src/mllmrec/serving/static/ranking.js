// A ranked list: position, poster, title, and the probability as a bar.

import { el, rove } from "./dom.js";
import { percent, poster } from "./items.js";

/** The mark of the held-out item: a sign and words, so that it doesn't hang on colour. */
export const heldOut = () => el("span.held", {}, el("span", { "aria-hidden": "true" }, "◆ "), "held out");

/**
 * An ordered list. With `choose`, rows are buttons and one of them, `chosen`, is pressed; with `act`, each row ends in
 * a button made by it. Bars of a list to choose from are as long as their share of the whole, others as of the first.
 */
export function ranking(items, { label, target = null, chosen = null, choose = null, act = null }) {
  const whole = choose ? 1 : items[0].probability || 1;
  const list = el(
    "ol.ranking",
    { "aria-label": label, "data-bars": choose ? "absolute" : "relative" },
    items.map((item, row) => {
      const held = item.item_id === target;
      const inside = [
        el("span.place", {}, String(row + 1)),
        poster(item),
        el(
          "span.what",
          {},
          el("span.title", {}, item.title, held && " ", held && heldOut()),
          el("span.bar", { "aria-hidden": "true", vars: { share: item.probability / whole } }, el("i")),
        ),
        el("span.share", {}, percent(item.probability)),
      ];
      const own = choose
        ? el(
            "button.row",
            {
              type: "button",
              "data-item": item.item_id,
              "aria-pressed": String(item.item_id === chosen),
              tabindex: (chosen ? item.item_id === chosen : row === 0) ? "0" : "-1",
              onclick: () => choose(item.item_id),
            },
            inside,
          )
        : el("div.row", { "data-item": item.item_id }, inside, act?.(item));
      return el("li", { class: held ? "target" : null }, own);
    }),
  );
  if (choose) rove(list, ".row");
  return list;
}

/** Press another row of a list that is shown. */
export function press(list, id) {
  for (const row of list.querySelectorAll("button.row")) {
    row.setAttribute("aria-pressed", String(row.dataset.item === id));
    row.tabIndex = row.dataset.item === id ? 0 : -1;
  }
}
