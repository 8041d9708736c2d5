// What was measured: every ranker on the same lists with its intervals, and how training went.

import { fetched, get, hasKey } from "./api.js";
import { curve, interval } from "./charts.js";
import { announce, el } from "./dom.js";
import { counted } from "./items.js";
import { Region, bones, empty } from "./regions.js";
import { change } from "./state.js";

const FAVOURITES = ["NDCG@3", "HR@1", "NDCG@5", "NDCG@10", "MRR"];
const CURVES = ["loss", "valid_NDCG@3", "valid_HR@1", "reward", "kl", "entropy", "candidate_entropy", "grad_norm"];

export function run(root, models) {
  const link = el("a.button", { href: "report", hidden: true, onclick: (event) => hasKey() && save(event) });
  const body = el("div", {});
  const region = new Region(body, () => bones(9, "rows"));
  root.replaceChildren(el("div.lead", {}, el("h1", { tabindex: "-1" }, "What was measured"), link), body);
  let found = null;
  const draw = (metric) => {
    link.hidden = !found.report;
    link.textContent = hasKey() ? "Download the report" : "The whole report";
    const served = new Set(models.map((model) => model.id));
    const tables = [...new Set(found.runs.map((own) => own.candidates))].map((name) =>
      ladder(name, found.runs.filter((own) => own.candidates === name), metric, served),
    );
    const none = empty("Nothing was measured yet", "mllmrec evaluate and mllmrec baselines put their figures here.");
    return [...(tables.length ? tables : [none]), training(found.curves ?? {}), audit(found.audit)].filter(Boolean);
  };
  return {
    update({ metric }) {
      if (found) return region.show(draw(metric));
      return region.load(
        (signal) => get("v1/run", {}, signal),
        (answer) => {
          found = { ...answer, runs: answer.runs.filter((own) => own.metrics) };
          return draw(metric);
        },
      );
    },
    close: () => region.stop(),
  };
}

/** The report as a file: a link bears no key, and the page's own policy would keep the report's style out. */
async function save(event) {
  event.preventDefault();
  try {
    const address = await fetched("report");
    el("a", { href: address, download: "report.html" }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  } catch (error) {
    announce(`${error.title}. ${error.message}`);
  }
}

function ladder(name, runs, wanted, served) {
  const metrics = [...new Set(runs.flatMap((own) => Object.keys(own.metrics)))];
  const metric = metrics.includes(wanted) ? wanted : FAVOURITES.find((own) => metrics.includes(own)) ?? metrics[0];
  const rows = runs.filter((own) => own.metrics[metric]).sort((a, b) => b.metrics[metric].value - a.metrics[metric].value);
  const ends = rows.flatMap(({ metrics: { [metric]: own } }) => [own.low ?? own.value, own.high ?? own.value]);
  const [least, most] = [Math.min(...ends), Math.max(...ends)];
  const head = (own) =>
    el(
      "th",
      { scope: "col" },
      el("button", { type: "button", "aria-pressed": String(own === metric), onclick: () => change({ metric: own }) }, own),
    );
  const cell = (own, drawn) => {
    if (!own) return el("td", {}, "–");
    const range = typeof own.low === "number" ? `${figure(own.low)}–${figure(own.high)}` : "";
    return el("td", { class: drawn ? "drawn" : null }, figure(own.value), el("small", {}, range));
  };
  const table = el(
    "table.ladder",
    {},
    el(
      "thead",
      {},
      el(
        "tr",
        {},
        el("th", { scope: "col" }, "Ranker"),
        el("th.plot", { scope: "col" }, `${metric}, ${figure(least)} to ${figure(most)}`),
        metrics.map(head),
      ),
    ),
    el(
      "tbody",
      {},
      rows.map((own) =>
        el(
          "tr",
          { class: served.has(own.name) ? "served" : null },
          el("th", { scope: "row" }, own.name, served.has(own.name) && el("small", {}, " served here")),
          el(
            "td.plot",
            { "aria-hidden": "true" },
            el("div", {}, interval(own.metrics[metric], least, most), el("span", {}, figure(own.metrics[metric].value))),
          ),
          metrics.map((key) => cell(own.metrics[key], key === metric)),
        ),
      ),
    ),
  );
  const users = rows[0]?.num_users ?? 0;
  return el(
    "section",
    { "aria-label": `Measured on ${name}` },
    el(
      "div.section-head",
      {},
      el("h2", {}, name),
      el("p.note", {}, `${counted(users, "user")}; ranges are 95 % intervals`),
    ),
    el("div.scroll", { tabindex: "0", role: "region", "aria-label": `Table of ${name}` }, table),
  );
}

const figure = (value) => value.toFixed(3);

function training(curves) {
  const tags = Object.entries(curves)
    .map(([tag, rows]) => [tag, lines(rows)])
    .filter(([, own]) => own.length);
  if (!tags.length) return null;
  return el(
    "section",
    { "aria-label": "Training" },
    el("div.section-head", {}, el("h2", {}, "Training")),
    tags.map(([tag, own]) => el("div.curves", {}, el("h3", {}, tag), el("div.grid", {}, own))),
  );
}

/** Curves of what is logged at more than one step, the best known first. */
function lines(rows) {
  const names = CURVES.filter((name) => rows.filter((row) => typeof row[name] === "number").length > 1);
  return names.slice(0, 4).map((name) =>
    curve(
      rows.filter((row) => typeof row[name] === "number").map((row) => [row.step, row[name]]),
      name,
    ),
  );
}

/** What the audit of the files found. */
function audit(found) {
  if (!found) return null;
  return el(
    "section",
    { "aria-label": "Audit" },
    el("div.section-head", {}, el("h2", {}, "Audit of the files")),
    el("p", {}, found.headline),
    found.findings.length > 0 &&
      el(
        "ul.findings",
        {},
        found.findings.map((own) => el("li", {}, el("b", {}, `${own.verdict}: `), `${own.check}, ${own.where}. ${own.found}`)),
      ),
  );
}
