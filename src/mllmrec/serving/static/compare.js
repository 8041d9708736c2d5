// Two models and one user: what moves up, and what down.

import { get, post } from "./api.js";
import { slopes } from "./charts.js";
import { announce, el } from "./dom.js";
import { percent, poster, remember, strip } from "./items.js";
import { userPicker } from "./picker.js";
import { heldOut } from "./ranking.js";
import { Region, bones, empty } from "./regions.js";
import { change } from "./state.js";

export function compare(root, models) {
  const heading = el("h1", { tabindex: "-1" }, "Two models, one user");
  if (models.length < 2) {
    const words = "Start the server with two or more, as in mllmrec serve --tag sft,grpo, to see what one changes.";
    root.replaceChildren(heading, empty("One model is served", words));
    return { update() {}, close() {} };
  }
  const picker = userPicker((user) => change({ user }));
  const choices = ["a", "b"].map((name, row) => tagChoice(name, row ? "with" : "Compare", models));
  const body = el("section", { "aria-label": "Comparison" });
  const region = new Region(body, () => bones(10, "rows"));
  root.replaceChildren(
    el("div.lead", {}, heading, el("div.controls", {}, choices.map((own) => own.node), picker.node)),
    body,
  );
  let shown = "";
  return {
    update(params) {
      const names = models.map((model) => model.id);
      const a = names.includes(params.a) ? params.a : names.at(-1);
      const b = names.includes(params.b) ? params.b : names.find((name) => name !== a);
      choices[0].field.value = a;
      choices[1].field.value = b;
      picker.show(params.user);
      const wanted = JSON.stringify([params.user, a, b]);
      if (wanted === shown) return undefined;
      shown = wanted;
      return region.load((signal) => both(params.user, a, b, signal), (found) => drawn(found, a, b));
    },
    close: () => region.stop(),
  };
}

function tagChoice(name, label, models) {
  const field = el(
    "select",
    { id: `tag-${name}`, onchange: () => change({ [name]: field.value }) },
    models.map((model) => el("option", { value: model.id }, model.id)),
  );
  return { field, node: el("div.field", {}, el("label", { for: field.id }, label), field) };
}

async function both(user, a, b, signal) {
  const id = user ?? (await get("v1/users", { limit: 1 }, signal)).users[0]?.user_id;
  if (!id) return null;
  const found = await get(`v1/users/${encodeURIComponent(id)}`, {}, signal);
  const history = found.history.map((item) => item.item_id);
  let { candidates } = found;
  if (!candidates.length) {
    const some = await post("v1/recommend", { user: id, top_k: 10, model: a }, signal);
    candidates = some.items.map((item) => item.item_id);
  }
  const [one, other] = await Promise.all(
    [a, b].map((model) => post("v1/rank", { history, candidates, model }, signal)),
  );
  remember([...found.history, ...one.items]);
  return { found, lists: [one.items, other.items] };
}

function drawn(answer, a, b) {
  if (!answer?.lists[0].length) return empty("Nothing to compare", "There are no candidates for this user.");
  const { found, lists } = answer;
  const target = found.target?.item_id ?? null;
  const [before, after] = lists.map((items) => new Map(items.map((item, row) => [item.item_id, row])));
  const pairs = lists[0].map(({ item_id: item }, from) => ({ item, from, to: after.get(item), held: item === target }));
  const words = summary(lists[0], before, after, target, a, b);
  announce(words);
  const held = (item) => item.item_id === target && heldOut();
  const row = (item, place, move) =>
    el(
      "li",
      { "data-item": item.item_id, tabindex: place ? "-1" : "0", class: item.item_id === target ? "target" : null },
      el("span.place", {}, String(place + 1)),
      poster(item),
      el("span.what", {}, el("span.title", {}, item.title, " ", held(item)), move),
      el("span.share", {}, percent(item.probability)),
    );
  const figure = el(
    "div.duel",
    {},
    el("h2", {}, a),
    el("h2", {}, b),
    el("ol", { "aria-label": `Ranked by ${a}` }, lists[0].map((item, place) => row(item, place, null))),
    slopes(pairs, lists[0].length),
    el(
      "ol",
      { "aria-label": `Ranked by ${b}` },
      lists[1].map((item, place) => row(item, place, moved(before.get(item.item_id) - place))),
    ),
  );
  lightUp(figure);
  return [
    strip(found.history, `What ${found.user_id} chose, oldest first`),
    el("p.verdict", {}, words),
    figure,
  ];
}

function moved(by) {
  if (!by) return el("small.move", {}, "as before");
  return el("small.move", {}, `${by > 0 ? "↑" : "↓"} ${Math.abs(by)} ${by > 0 ? "up" : "down"}`);
}

function summary(items, before, after, target, a, b) {
  const moves = items.filter((item) => before.get(item.item_id) !== after.get(item.item_id)).length;
  const most = moves ? `${moves} of ${items.length} candidates stand elsewhere.` : "Both give the same order.";
  if (!before.has(target)) return most;
  const [from, to] = [before.get(target) + 1, after.get(target) + 1];
  const held =
    from === to
      ? `Both put the held-out item at place ${from}.`
      : `The held-out item stands at place ${from} for ${a} and at ${to} for ${b}.`;
  return `${held} ${most}`;
}

/** Whatever is pointed at or focused is lit up in both lists and in between; arrows go through a list. */
function lightUp(figure) {
  const light = (event) => {
    const item = event.target.closest("[data-item]")?.dataset.item;
    for (const own of figure.querySelectorAll("[data-item]")) own.classList.toggle("lit", own.dataset.item === item);
    figure.classList.toggle("lighting", Boolean(item));
  };
  figure.addEventListener("pointerover", light);
  figure.addEventListener("pointerleave", light);
  figure.addEventListener("focusin", light);
  figure.addEventListener("keydown", (event) => {
    const step = { ArrowUp: "previousElementSibling", ArrowDown: "nextElementSibling" }[event.key];
    const next = step && event.target[step];
    if (!next?.matches("li")) return;
    event.preventDefault();
    [event.target.tabIndex, next.tabIndex] = [-1, 0];
    next.focus();
  });
}
