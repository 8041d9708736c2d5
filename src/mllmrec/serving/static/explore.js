// One user: what was chosen, what the model makes of the candidates, and why.

import { get, post } from "./api.js";
import { announce, el, rove } from "./dom.js";
import { cutNote, counted, ordinal, remember, seconds, strip } from "./items.js";
import { userPicker } from "./picker.js";
import { press, ranking } from "./ranking.js";
import { Region, bones, empty } from "./regions.js";
import { change } from "./state.js";
import { whyPanel } from "./why.js";

const NARROW = matchMedia("(max-width: 859px)");

export function explore(root, models) {
  const heading = el("h1", { tabindex: "-1" }, "What comes next?");
  const picker = userPicker((user) => change({ user, item: null }));
  const past = el("section", { "aria-label": "History" });
  const ranked = el("section.ranked", { "aria-label": "Candidates" });
  const why = whyPanel();
  const columns = el("div.columns", {}, ranked, why.node);
  root.replaceChildren(el("div.lead", {}, heading, picker.node), past, columns);

  const history = new Region(past, () => bones(7, "posters"));
  const candidates = new Region(ranked, () => bones(9, "rows"));
  const place = () => settle(columns, ranked, why.node);
  NARROW.addEventListener("change", place);

  let shown = "";
  let question = null;

  const select = (id) => {
    const row = question.items.findIndex((item) => item.item_id === id);
    const item = question.items[row];
    if (!item) return;
    why.node.hidden = false;
    press(ranked, id);
    place();
    why.explain({ ...question, place: row + 1 }, item);
  };

  const showUser = async (user, model, wanted) => {
    question = null;
    heading.textContent = `What does ${user} choose next?`;
    columns.append(why.node);
    candidates.clear();
    why.clear();
    why.node.hidden = true;
    const came = await history.load(
      async (signal) => {
        const found = await get(`v1/users/${encodeURIComponent(user)}`, {}, signal);
        remember([...found.history, found.target]);
        return found;
      },
      (found) => {
        columns.hidden = false;
        candidates.load(
          (signal) => rankedFor(found, model.id, signal),
          (answer) => {
            question = questionOf(found, answer, model);
            announce(verdict(question));
            const chosen = question.items.some((item) => item.item_id === wanted) ? wanted : question.items[0]?.item_id;
            queueMicrotask(() => select(chosen));
            return drawn(question, answer, chosen);
          },
        );
        return pastDrawn(found, model);
      },
    );
    if (!came && shown === keyOf(user, model)) columns.hidden = true;
  };

  return {
    async update(params) {
      const model = models.find((own) => own.id === params.model) ?? models[0];
      if (!params.user) {
        shown = "";
        columns.hidden = true;
        return history.load(
          (signal) => get("v1/users", { limit: 1 }, signal),
          ({ users }) => {
            if (!users.length) return empty("Nobody is here", "The dataset has no users.");
            queueMicrotask(() => change({ user: users[0].user_id }, { quietly: true }));
            return bones(7, "posters");
          },
        );
      }
      picker.show(params.user);
      const wanted = keyOf(params.user, model);
      if (wanted !== shown) {
        shown = wanted;
        columns.hidden = false;
        return showUser(params.user, model, params.item);
      }
      if (params.item && question) select(params.item);
      return undefined;
    },
    close() {
      NARROW.removeEventListener("change", place);
      [history, candidates, why].forEach((own) => own.stop());
    },
  };
}

const keyOf = (user, model) => `${model.id} ${user}`;

/** In a narrow window the reasons stand in the row that they are about. */
function settle(columns, ranked, why) {
  const row = ranked.querySelector('[aria-pressed="true"]')?.parentElement;
  if (NARROW.matches && row) row.append(why);
  else columns.append(why);
}

function rankedFor(found, model, signal) {
  const history = found.history.map((item) => item.item_id);
  if (!found.candidates.length) return post("v1/recommend", { user: found.user_id, top_k: 10, model }, signal);
  return post("v1/rank", { history, candidates: found.candidates, model }, signal);
}

function questionOf(found, answer, model) {
  remember(answer.items);
  return {
    user: found.user_id,
    history: found.history.map((item) => item.item_id),
    candidates: found.candidates.length ? found.candidates : answer.items.map((item) => item.item_id),
    frozen: found.candidates.length > 0,
    items: answer.items,
    target: found.target?.item_id ?? null,
    model: model.id,
    retriever: answer.retriever,
    blend: answer.blend ?? null,
  };
}

function verdict({ items, target, frozen, retriever }) {
  const row = items.findIndex((item) => item.item_id === target);
  if (row >= 0) {
    const place = row ? ordinal(row + 1) : "first";
    return `${items[row].title}, the held-out item, is ranked ${place} of ${items.length}.`;
  }
  return frozen ? "Nothing is held out for this user." : `Nothing is held out; candidates are the best of ${retriever}.`;
}

function drawn(question, answer, chosen) {
  if (!answer.items.length) return empty("No candidates", "The retriever finds nothing beside this history.");
  return [
    el("h2", {}, "Candidates"),
    el("p.verdict", {}, verdict(question)),
    ranking(answer.items, {
      label: `Candidates ranked by ${question.model}`,
      target: question.target,
      chosen,
      choose: (item) => change({ item }),
    }),
    el(
      "p.note.credit",
      {},
      `Exact shares of probability by ${question.blend ?? question.model}, in ${seconds(answer.seconds)}. ${cutNote(answer)}`,
    ),
  ];
}

function pastDrawn(found, model) {
  if (!found.history.length) return empty("No history", `${found.user_id} has chosen nothing yet.`);
  const list = strip(found.history, `What ${found.user_id} chose, oldest first`);
  rove(list, "li[tabindex]", { across: true });
  const read = model.window ? model.window - 1 : found.history.length;
  const more = found.history.length > read ? `; the model reads the last ${read}` : "";
  return [
    el(
      "div.section-head",
      {},
      el("h2", {}, counted(found.history.length, "choice")),
      el("p.note", {}, `oldest to newest${more}`),
    ),
    list,
  ];
}
