// Small drawings: bars to both sides, lines between two lists, intervals and curves.

import { el, svg } from "./dom.js";
import { poster, signed } from "./items.js";

/** What leaving out each item of the history does to the log-odds: to the right what speaks for it, to the left against. */
export function diverging(reasons) {
  const widest = Math.max(...reasons.map((reason) => Math.abs(reason.effect ?? 0)), 0.01);
  return el(
    "ol.effects",
    { "aria-label": "Effect of each item of the history on the log-odds, oldest first" },
    reasons.map((reason) => {
      const effect = reason.effect ?? 0;
      const side = effect < 0 ? "against" : "for";
      return el(
        "li",
        { "data-item": reason.item_id },
        poster(reason),
        el("span.title", {}, reason.title),
        el("span.both", { "aria-hidden": "true" }, el("i", { class: side, vars: { size: Math.abs(effect) / widest } })),
        el("span.figure", {}, signed(reason.effect), el("span.unseen", {}, effect < 0 ? ", against it" : ", for it")),
      );
    }),
  );
}

/** Lines from the positions of items in one list to those in another, both of rows as high as one another. */
export function slopes(pairs, count) {
  const drawing = svg("svg.slopes", {
    viewBox: `0 0 100 ${count * 10}`,
    preserveAspectRatio: "none",
    "aria-hidden": "true",
  });
  for (const { item, from, to, held } of pairs) {
    const [y0, y1] = [from * 10 + 5, to * 10 + 5];
    drawing.append(
      svg("path", {
        d: `M0 ${y0} C 45 ${y0}, 55 ${y1}, 100 ${y1}`,
        class: held ? "held" : from === to ? "same" : "moved",
        "data-item": item,
      }),
    );
  }
  return drawing;
}

/** A figure and its 95 % interval on an axis from `least` to `most`. */
export function interval({ value, low, high }, least, most) {
  const at = (own) => 2 + (96 * (own - least)) / (most - least || 1);
  const known = low !== null && low !== undefined && high !== null && high !== undefined;
  return svg(
    "svg.interval",
    { viewBox: "0 0 100 12", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("line.axis", { x1: 0, x2: 100, y1: 6, y2: 6 }),
    known && svg("line.range", { x1: at(low), x2: at(high), y1: 6, y2: 6 }),
    svg("line.dot", { x1: at(value), x2: at(value), y1: 2.5, y2: 9.5 }),
  );
}

/** A line through [step, value] points, with its lowest and highest value beside it. */
export function curve(points, name) {
  const [xs, ys] = [points.map(([step]) => step), points.map(([, value]) => value)];
  const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const x = (step) => ((step - x0) / (x1 - x0 || 1)) * 200;
  const y = (value) => 58 - ((value - y0) / (y1 - y0 || 1)) * 54;
  const line = points.map(([step, value], row) => `${row ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`);
  return el(
    "figure.curve",
    {},
    el("figcaption", {}, el("span", {}, name), el("b", {}, brief(ys.at(-1)))),
    svg(
      "svg",
      { viewBox: "0 0 200 62", preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("line.axis", { x1: 0, x2: 200, y1: 61, y2: 61 }),
      svg("path", { d: line.join("") }),
    ),
    el("p.note", {}, `${brief(y0)} to ${brief(y1)}, steps ${x0} to ${x1}`),
  );
}

function brief(value) {
  const size = Math.abs(value);
  if (size && (size < 0.001 || size >= 1e5)) return value.toExponential(1);
  return value.toFixed(size < 10 ? 3 : size < 1000 ? 1 : 0);
}
