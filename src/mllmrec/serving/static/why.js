// Why a candidate stands where it stands: its probability, what the history did to it, what the model thought.

import { post } from "./api.js";
import { diverging } from "./charts.js";
import { announce, el } from "./dom.js";
import { counted, ordinal, percent, poster, remember, seconds, signed } from "./items.js";
import { heldOut } from "./ranking.js";
import { Region, bones, empty } from "./regions.js";

/** A panel; `explain(question, item)` fills it. */
export function whyPanel() {
  const node = el("section.why", { "aria-label": "Why" });
  const region = new Region(node, () => bones(7));
  const explain = ({ history, candidates, model, blend, target, place }, item) => {
    const body = { history, item: item.item_id, candidates, model, blended: Boolean(blend) };
    return region.load(
      async (signal) => {
        const found = await post("v1/explain", body, signal);
        remember([found.item, ...found.reasons].filter((own) => own?.item_id));
        return found;
      },
      (found) => {
        announce(`${item.title}: ${percent(found.probability)}. ${strongest(found.reasons)}`);
        return drawn(found, item, item.item_id === target, place);
      },
    );
  };
  region.show(empty("Why?", "Choose a candidate to see what each item of the history did to it."));
  return { node, explain, stop: () => region.stop(), clear: () => region.clear() };
}

function drawn(found, item, held, place) {
  return [
    el(
      "header",
      {},
      poster(item, { lazy: false }),
      el(
        "div",
        {},
        el("h2", {}, item.title, held && " ", held && heldOut()),
        el(
          "p.big",
          {},
          percent(found.probability),
          el("small", {}, ` ${ordinal(place)} of ${found.candidates.length}, log-odds ${signed(found.log_odds)}`),
        ),
        item.caption && el("p.note", {}, item.caption),
      ),
    ),
    el("h3", {}, "What each choice did to it"),
    el("p.note", {}, strongest(found.reasons)),
    found.reasons.length ? diverging(found.reasons) : empty("No history", "There is nothing to leave out."),
    found.reasons.length > 0 && el("p.axis-words", { "aria-hidden": "true" }, el("span", {}, "against"), el("span", {}, "for")),
    thoughts(found.thoughts),
    el("p.note.credit", {}, `Left out one at a time and ranked anew by ${found.blend ?? found.model}, in ${seconds(found.seconds)}. Effects are in log-odds.`),
  ].filter(Boolean);
}

function strongest(reasons) {
  const known = reasons.filter((reason) => typeof reason.effect === "number");
  if (!known.length) return "";
  const first = known.reduce((best, own) => (Math.abs(own.effect) > Math.abs(best.effect) ? own : best));
  if (Math.abs(first.effect) < 0.05) return "No single choice matters much.";
  return `${first.title} speaks most ${first.effect < 0 ? "against" : "for"} it.`;
}

function thoughts(texts) {
  if (!texts?.length) return null;
  return el(
    "div.thoughts",
    {},
    el("h3", {}, texts.length === 1 ? "What the model thought" : `What the model thought, ${counted(texts.length, "time")}`),
    texts.map((text, row) =>
      row ? el("details", {}, el("summary", {}, `Thought ${row + 1}`), el("blockquote", {}, text)) : el("blockquote", {}, text),
    ),
  );
}
