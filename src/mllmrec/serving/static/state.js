// What is shown, as the part of the address after #: `#explore?user=u7&item=31`. It can be bookmarked and sent.

export const VIEWS = ["explore", "compare", "try", "run"];

/** What lasts from one view to another. */
const SHARED = ["user", "model"];

export function read() {
  const [view, query] = location.hash.slice(1).split("?");
  return { view: VIEWS.includes(view) ? view : VIEWS[0], params: Object.fromEntries(new URLSearchParams(query ?? "")) };
}

export function address(view, params) {
  const kept = Object.entries(params).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const query = new URLSearchParams(kept).toString();
  return query ? `#${view}?${query}` : `#${view}`;
}

/** Change some parameters of the view that is shown; `quietly` leaves no entry in the history of the browser. */
export function change(changes, { quietly = false } = {}) {
  const { view, params } = read();
  const next = address(view, { ...params, ...changes });
  if (next === location.hash) return;
  if (quietly) {
    history.replaceState(null, "", next);
    dispatchEvent(new HashChangeEvent("hashchange"));
  } else location.hash = next;
}

/** The address of a view, with what lasts. */
export function leadingTo(view) {
  const { params } = read();
  return address(view, Object.fromEntries(SHARED.map((name) => [name, params[name]])));
}
