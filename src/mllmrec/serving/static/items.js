// Items as they are shown: posters, captions, figures. What was seen once is remembered.

import { get, picture } from "./api.js";
import { el } from "./dom.js";

const seen = new Map();

export function remember(items) {
  for (const item of items) if (item) seen.set(item.item_id, { ...seen.get(item.item_id), ...item });
  return items;
}

/** An item by its id, asked for where it wasn't seen yet. */
export async function itemOf(id, signal) {
  if (!seen.has(id)) remember([await get(`v1/items/${encodeURIComponent(id)}`, {}, signal)]);
  return seen.get(id);
}

/** A poster in a frame of 2:3, or the title on a plain cover where there is none. */
export function poster(item, { lazy = true } = {}) {
  const frame = el("span.poster", { "aria-hidden": "true" });
  if (!item.image) return cover(frame, item);
  const image = el("img", { alt: "", decoding: "async", loading: lazy && "lazy" });
  const bare = () => cover(frame, item);
  image.addEventListener("error", bare, { once: true });
  frame.append(image);
  const path = picture(item.image.replace(/^\//, ""));
  if (typeof path === "string") image.src = path;
  else path.then((own) => (image.src = own), bare);
  return frame;
}

function cover(frame, item) {
  frame.classList.add("cover");
  const initial = item.title.match(/[\p{L}\p{N}]/u)?.[0] ?? "·";
  frame.replaceChildren(el("span.cover-title", {}, item.title), el("span.cover-initial", {}, initial.toUpperCase()));
  return frame;
}

/** The history as a strip, oldest first; captions come out by pointer or focus, and are always there to be read. */
export function strip(items, label) {
  return el(
    "ol.strip",
    { "aria-label": label },
    items.map((item, row) =>
      el(
        "li",
        { tabindex: row ? "-1" : "0" },
        el("span.frame", {}, poster(item, { lazy: row > 12 }), item.caption && el("span.caption", {}, item.caption)),
        el("span.strip-title", {}, item.title),
      ),
    ),
    el("li.next", { "aria-hidden": "true" }, "?"),
  );
}

/** What is told of a history that was longer than what the model was shown. */
export const cutNote = ({ history_given: given, history_read: read }) =>
  given > read ? `Of the ${counted(given, "item")} of the history the model was shown the last ${read}.` : "";

export const percent = (share) =>
  share > 0 && share < 0.0005 ? "<0.1%" : share < 1 && share > 0.9995 ? ">99.9%" : `${(share * 100).toFixed(1)}%`;

export function signed(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value).toFixed(2);
  return Number(size) ? `${value < 0 ? "−" : "+"}${size}` : size;
}

export const seconds = (value) => (value < 10 ? `${value.toFixed(2)} s` : `${value.toFixed(0)} s`);

export const counted = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

export function ordinal(place) {
  const ending = place % 100 > 10 && place % 100 < 14 ? "th" : { 1: "st", 2: "nd", 3: "rd" }[place % 10] ?? "th";
  return `${place}${ending}`;
}
