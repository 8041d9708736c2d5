// Elements made of plain data. Text is always text: nothing here reads markup.

const SVG = "http://www.w3.org/2000/svg";

/** `el("p.note", {id: "x"}, "text", child)`; `on…` are listeners, `vars` are custom properties of CSS. */
export function el(spec, props = {}, ...children) {
  const [tag, ...classes] = spec.split(".");
  return furnish(document.createElement(tag), classes, props, children);
}

/** As `el`, for drawings. */
export function svg(spec, props = {}, ...children) {
  const [tag, ...classes] = spec.split(".");
  return furnish(document.createElementNS(SVG, tag), classes, props, children);
}

function furnish(node, classes, props, children) {
  if (classes.length) node.classList.add(...classes);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "vars") for (const [key, own] of Object.entries(value)) node.style.setProperty(`--${key}`, own);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Tell a screen reader what has changed. */
export function announce(text) {
  document.getElementById("status").textContent = text;
}

/** Wait for a pause before a function is called; `cancel` forgets the call that waits. */
export function paused(call, milliseconds) {
  let timer;
  const later = (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => call(...values), milliseconds);
  };
  later.cancel = () => clearTimeout(timer);
  return later;
}

/** One tab stop for a group of elements: arrows, Home and End go from one to the next. */
export function rove(group, selector, { across = false } = {}) {
  const members = () => [...group.querySelectorAll(selector)];
  const current = () => members().find((member) => member.tabIndex === 0);
  const hold = (chosen) => members().forEach((member) => (member.tabIndex = member === chosen ? 0 : -1));
  hold(current() ?? members()[0]);
  group.addEventListener("focusin", (event) => {
    const member = event.target.closest(selector);
    if (member) hold(member);
  });
  group.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || !event.target.matches(selector)) return;
    const all = members();
    const row = all.indexOf(event.target);
    const [before, after] = across ? ["ArrowLeft", "ArrowRight"] : ["ArrowUp", "ArrowDown"];
    const next = { [before]: row - 1, [after]: row + 1, Home: 0, End: all.length - 1 }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    all[Math.min(Math.max(next, 0), all.length - 1)].focus();
  });
}
