// A history of one's own, and what the model would go on with, while it is put together.

import { get, post } from "./api.js";
import { announce, el, paused } from "./dom.js";
import { counted, cutNote, itemOf, poster, remember, seconds } from "./items.js";
import { draggable, madeHistory } from "./made.js";
import { userPicker } from "./picker.js";
import { ranking } from "./ranking.js";
import { Region, bones, empty } from "./regions.js";
import { change, read } from "./state.js";

const SHOWN = 24;
const RETRIEVED = 100;
const OWN = "~";

/** Ids of the history in the address; what begins with ~ is a title that the catalogue lacks. */
const historyIn = (params) => (params.history ? params.history.split(",").map(decodeURIComponent) : []);
const own = (id) => id.startsWith(OWN);
const wanted = (id, signal) => (own(id) ? { item_id: id, title: id.slice(1), image: null, caption: null } : itemOf(id, signal));
const asked = (id, row) => (own(id) ? { id: `own-${row + 1}`, title: id.slice(1) } : id);

export function tryIt(root, models) {
  const set = (ids) => change({ history: ids.map(encodeURIComponent).join(",") });
  const add = (id, title) => {
    const ids = historyIn(read().params);
    if (ids.includes(id)) return announce(`${title} is in the history already.`);
    announce(`${title} is added.`);
    return set([...ids, id]);
  };
  const made = madeHistory(set);
  const catalogue = shelf(add, () => historyIn(read().params));
  const found = el("section.found", { "aria-label": "Recommendations" });
  const results = new Region(found, () => bones(8, "rows"));
  const start = userPicker(async (user) => {
    try {
      const { history } = await get(`v1/users/${encodeURIComponent(user)}`);
      remember(history);
      set(history.map((item) => item.item_id));
    } catch (error) {
      announce(`${error.title}. ${error.message}`);
    }
  }, "Begin with");
  const count = el("select", { id: "top-k", onchange: () => change({ k: count.value }) });
  count.append(...[5, 10, 20, 50].map((own) => el("option", { value: own }, String(own))));
  const wipe = el("button.quiet", { type: "button", onclick: () => set([]) }, "Clear");
  root.replaceChildren(
    el("div.lead", {}, el("h1", { tabindex: "-1" }, "Try a history of your own"), start.node),
    el(
      "div.bench",
      {},
      catalogue.node,
      el(
        "section.made",
        { "aria-label": "Your history" },
        el("div.section-head", {}, el("h2", {}, "History"), wipe),
        made.node,
      ),
      el(
        "section.next",
        { "aria-label": "What comes next" },
        el(
          "div.section-head",
          {},
          el("h2", {}, "What comes next"),
          el("div.field", {}, el("label", { for: "top-k" }, "Show"), count),
        ),
        found,
      ),
    ),
  );
  catalogue.search();

  const recommend = paused((ids, k, model) => {
    const body = { history: ids.map(asked), top_k: k, retrieve: RETRIEVED, model: model.id };
    results.load((signal) => post("v1/recommend", body, signal), (answer) => drawn(answer, add));
  }, 250);
  let shown = "";
  return {
    async update(params) {
      const ids = historyIn(params);
      const model = models.find((own) => own.id === params.model) ?? models[0];
      const k = Number(params.k) || 10;
      count.value = String(k);
      const state = JSON.stringify([ids, k, model.id]);
      if (state === shown) return;
      shown = state;
      wipe.hidden = !ids.length;
      results.stop();
      try {
        const items = await Promise.all(ids.map((id) => wanted(id)));
        if (shown !== state) return;
        made.show(items);
        catalogue.mark();
      } catch (error) {
        results.load(() => Promise.reject(error), () => null);
        return;
      }
      if (ids.length) recommend(ids, k, model);
      else {
        recommend.cancel();
        results.show(empty("Nothing yet", "Recommendations follow as soon as the history has an item."));
      }
    },
    close: () => [results, catalogue].forEach((own) => own.stop()),
  };
}

function drawn(answer, add) {
  remember(answer.items);
  if (!answer.items.length) return empty("Nothing is left", "The retriever finds nothing beside this history.");
  announce(`${counted(answer.items.length, "recommendation")}. First: ${answer.items[0].title}.`);
  const plus = (item) =>
    el(
      "button.icon",
      { type: "button", "aria-label": `Add ${item.title} to the history`, onclick: () => add(item.item_id, item.title) },
      "+",
    );
  const blend = answer.blend ? `, blended as in ${answer.blend}` : "";
  return [
    ranking(answer.items, { label: "Recommendations, best first", act: plus }),
    el(
      "p.note.credit",
      {},
      `${RETRIEVED} candidates at most, found by ${answer.retriever}; ranked by ${answer.model}${blend}, in ${seconds(answer.seconds)}. ${cutNote(answer)}`,
    ),
  ];
}

/** The catalogue: a search field, and what it finds. */
function shelf(add, history) {
  const field = el("input", {
    id: "search",
    type: "search",
    placeholder: "Search titles",
    autocomplete: "off",
    spellcheck: "false",
  });
  const body = el("div.shelf", {});
  const region = new Region(body, () => bones(12, "tiles"));
  const tile = (item) =>
    el(
      "li",
      {},
      draggable(
        el(
          "button.tile",
          { type: "button", "data-item": item.item_id, title: item.caption, onclick: () => add(item.item_id, item.title) },
          poster(item),
          el("span.title", {}, item.title),
        ),
        item.item_id,
      ),
    );
  const mark = () => {
    const ids = new Set(history());
    for (const own of body.querySelectorAll("[data-item]")) {
      own.setAttribute("aria-pressed", String(ids.has(own.dataset.item)));
    }
  };
  const search = () => {
    const query = field.value.trim();
    region.load(
      (signal) => get("v1/items", { query, limit: SHOWN }, signal),
      ({ items, total }) => {
        remember(items);
        announce(`${counted(total, "title")} found`);
        queueMicrotask(mark);
        const known = !query || items.some((item) => item.title.toLowerCase() === query.toLowerCase());
        return [
          el("p.note", {}, items.length < total ? `${items.length} of ${counted(total, "title")}` : counted(total, "title")),
          items.length ? el("ul.tiles", {}, items.map(tile)) : empty("No such title", "Try fewer letters."),
          !known &&
            el(
              "button.quiet.own",
              { type: "button", onclick: () => add(OWN + query, query) },
              `Add “${query}” though the catalogue lacks it`,
            ),
        ].filter(Boolean);
      },
    );
  };
  field.addEventListener("input", paused(search, 200));
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      field.value = "";
      search();
    }
    if (event.key === "Enter") body.querySelector(".tile")?.click();
    if (event.key === "ArrowDown") {
      event.preventDefault();
      body.querySelector(".tile")?.focus();
    }
  });
  const node = el(
    "section.catalogue",
    { "aria-label": "Catalogue" },
    el("div.section-head", {}, el("h2", {}, "Catalogue")),
    el("label.unseen", { for: "search" }, "Search titles"),
    field,
    body,
  );
  return { node, search, mark, stop: () => region.stop() };
}
