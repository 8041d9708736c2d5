// A part of the page that waits for the server: skeleton, content, what went wrong and what to do about it.

import { keepKey } from "./api.js";
import { announce, el } from "./dom.js";

export class Region {
  /** `skeleton` gives what is shown while there is nothing yet; what there is stays, dimmed, while it is renewed. */
  constructor(node, skeleton = () => bones(4)) {
    Object.assign(this, { node, skeleton, controller: null, filled: false });
  }

  /**
   * Show what `draw` makes of what `work(signal)` brings, and tell whether it came; a later call puts an end to this one.
   */
  async load(work, draw) {
    this.stop();
    const controller = (this.controller = new AbortController());
    this.node.setAttribute("aria-busy", "true");
    if (this.filled) this.node.classList.add("stale");
    else this.node.replaceChildren(this.skeleton());
    try {
      const found = await work(controller.signal);
      if (controller.signal.aborted) return false;
      this.show(draw(found));
      return true;
    } catch (error) {
      if (controller.signal.aborted || error.name === "AbortError") return false;
      if (!error.kind) console.error(error);
      this.#refuse(error, () => this.load(work, draw), controller.signal);
      return false;
    }
  }

  show(...nodes) {
    this.node.replaceChildren(...nodes.flat());
    this.#settle();
    this.filled = true;
  }

  /** Wait no longer. */
  stop() {
    this.controller?.abort();
  }

  /** Forget what is shown: a skeleton stands for what is to come. */
  clear() {
    this.stop();
    this.filled = false;
    this.node.setAttribute("aria-busy", "true");
    this.node.replaceChildren(this.skeleton());
  }

  #settle() {
    this.node.removeAttribute("aria-busy");
    this.node.classList.remove("stale");
  }

  #refuse(error, again, signal) {
    this.#settle();
    this.filled = false;
    this.node.replaceChildren(problem(error, again));
    announce(`${error.title ?? "Something went wrong"}. ${error.message}`);
    if (error.kind === "loading") setTimeout(() => signal.aborted || again(), error.seconds * 1000);
  }
}

/** What went wrong, in words, with a way on. */
function problem(error, again) {
  const known = error.kind ? error : { kind: "fault", title: "The page made a mistake", message: String(error) };
  const hints = {
    gone: "Start it again with mllmrec serve, then try once more.",
    busy: known.seconds ? `It asks for ${known.seconds} s of patience.` : "Wait a moment, then try once more.",
    late: "A shorter list of candidates is answered sooner; so is a server with less to do.",
    loading: "This page looks again every few seconds.",
  };
  return el(
    "section.problem",
    { "data-kind": known.kind, "aria-label": known.title },
    el("h2", {}, known.title),
    el("p", {}, known.message),
    hints[known.kind] && el("p.note", {}, hints[known.kind]),
    known.kind === "key" ? keyForm(again) : el("button", { type: "button", onclick: again }, "Try again"),
  );
}

function keyForm(again) {
  const field = el("input", { type: "password", id: "key", autocomplete: "off", required: true, spellcheck: "false" });
  const send = (event) => {
    event.preventDefault();
    keepKey(field.value.trim());
    again();
  };
  return el(
    "form.key",
    { onsubmit: send },
    el("label", { for: "key" }, "Key"),
    field,
    el("button", { type: "submit" }, "Go on"),
    el("p.note", {}, "It stays in this tab and is forgotten when the tab is closed."),
  );
}

/** Grey lines in the place of what is to come. */
export function bones(count, shape = "line") {
  return el("div.bones", { "aria-hidden": "true", "data-shape": shape }, Array.from({ length: count }, () => el("i")));
}

/** Words in the place of something that isn't there. */
export function empty(title, text) {
  return el("div.empty", {}, el("p.empty-title", {}, title), el("p.note", {}, text));
}
