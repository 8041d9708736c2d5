// Begin: ask which models are served, then show the view that the address names.

import { get } from "./api.js";
import { compare } from "./compare.js";
import { el } from "./dom.js";
import { explore } from "./explore.js";
import { Region, bones } from "./regions.js";
import { run } from "./run.js";
import { change, leadingTo, read } from "./state.js";
import { tryIt } from "./try.js";

const OPENED = { explore, compare, try: tryIt, run };
const main = document.getElementById("main");
const links = [...document.querySelectorAll("#views a")];
const choice = document.getElementById("model");

let models = [];
let shown = { view: null, update() {}, close() {} };

function route() {
  const { view, params } = read();
  if (view !== shown.view) {
    const first = shown.view === null;
    shown.close();
    const root = el("div.view", { "data-view": view });
    main.replaceChildren(root);
    shown = { view, ...OPENED[view](root, models) };
    if (!first) {
      root.querySelector("h1")?.focus({ preventScroll: true });
      scrollTo(0, 0);
    }
  }
  for (const link of links) {
    const own = link.getAttribute("href").slice(1).split("?")[0];
    link.href = leadingTo(own);
    if (own === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    if (own === view) document.title = `${link.textContent}, mllmrec`;
  }
  choice.value = models.some((model) => model.id === params.model) ? params.model : models[0].id;
  document.getElementById("choice").hidden = models.length < 2 || view === "compare" || view === "run";
  shown.update(params);
}

function begin(answer) {
  models = answer.data;
  document.getElementById("dataset").textContent = models[0]?.dataset ?? "";
  choice.replaceChildren(...models.map((model) => el("option", { value: model.id }, model.id)));
  addEventListener("hashchange", route);
  queueMicrotask(route);
  return bones(6);
}

choice.addEventListener("change", () => change({ model: choice.value }));
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
new Region(main, () => bones(6)).load((signal) => get("v1/models", {}, signal), begin);
