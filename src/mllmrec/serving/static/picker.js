// A field that finds users: type, go through the list by arrows, Enter takes one, Escape leaves.

import { get } from "./api.js";
import { announce, el, paused } from "./dom.js";
import { counted } from "./items.js";

let number = 0;

/** The field with its list and a button for a user at random; `take(user_id)` is called with who was picked. */
export function userPicker(take, label = "User") {
  const id = `users-${++number}`;
  let found = [];
  let active = -1;
  let controller = null;
  const field = el("input", {
    id: `${id}-field`,
    type: "text",
    role: "combobox",
    "aria-expanded": "false",
    "aria-controls": id,
    "aria-autocomplete": "list",
    autocomplete: "off",
    spellcheck: "false",
    placeholder: "Search users",
  });
  const list = el("ul.options", { id, role: "listbox", "aria-label": "Users", hidden: true });

  const mark = (row) => {
    active = row;
    [...list.children].forEach((option, own) => option.setAttribute("aria-selected", String(own === row)));
    list.children[row]?.scrollIntoView({ block: "nearest" });
    if (row >= 0) field.setAttribute("aria-activedescendant", `${id}-${row}`);
    else field.removeAttribute("aria-activedescendant");
  };
  const close = () => {
    later.cancel();
    controller?.abort();
    list.hidden = true;
    field.setAttribute("aria-expanded", "false");
    mark(-1);
  };
  const pick = (user) => {
    close();
    field.value = user;
    take(user);
  };
  const option = (user, row) =>
    el(
      "li",
      {
        id: `${id}-${row}`,
        role: "option",
        "aria-selected": "false",
        onmousedown: (event) => event.preventDefault(),
        onclick: () => pick(user.user_id),
      },
      el("span", {}, user.user_id),
      el("small", {}, counted(user.length, "choice")),
    );
  const search = async () => {
    controller?.abort();
    controller = new AbortController();
    try {
      const { users, total } = await get("v1/users", { query: field.value.trim(), limit: 20 }, controller.signal);
      found = users;
      list.replaceChildren(...users.map(option));
      if (!users.length) list.append(el("li.none", { role: "option", "aria-disabled": "true" }, "No such user"));
      list.hidden = false;
      field.setAttribute("aria-expanded", "true");
      mark(-1);
      announce(`${counted(total, "user")} found`);
    } catch (error) {
      if (error.name === "AbortError") return;
      found = [];
      list.replaceChildren(el("li.none", { role: "option", "aria-disabled": "true" }, error.title ?? String(error)));
      list.hidden = false;
    }
  };
  const later = paused(search, 180);

  field.addEventListener("input", later);
  field.addEventListener("focus", () => field.select());
  field.addEventListener("click", search);
  field.addEventListener("blur", close);
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return close();
    if (event.key === "Enter") {
      const user = found[active]?.user_id ?? field.value.trim();
      return user && pick(user);
    }
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return undefined;
    event.preventDefault();
    if (list.hidden) return search();
    const step = event.key === "ArrowDown" ? 1 : -1;
    return mark(Math.min(Math.max(active + step, 0), found.length - 1));
  });
  const random = async () => {
    try {
      const { total } = await get("v1/users", { limit: 1 });
      const { users } = await get("v1/users", { limit: 1, offset: Math.floor(Math.random() * total) });
      if (users.length) pick(users[0].user_id);
    } catch (error) {
      announce(`${error.title}. ${error.message}`);
    }
  };
  const node = el(
    "div.picker",
    {},
    el("label", { for: field.id }, label),
    el("div.combo", {}, field, list),
    el("button.quiet", { type: "button", onclick: random }, "Random user"),
  );
  return { node, show: (user) => document.activeElement === field || (field.value = user ?? "") };
}
