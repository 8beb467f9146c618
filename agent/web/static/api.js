// The agent's verbs, the stream of changes, and elements.

export const me = { user: null, role: null, csrf: null, accounts: false };
const RANK = { viewer: 1, technician: 2, admin: 3 };

export const may = (role) => me.csrf !== null && RANK[me.role] >= RANK[role];

export async function refreshMe() {
  Object.assign(me, await (await fetch("/api/me")).json());
}

// The result of a verb; throws an Error that says what and what to do.
export async function ask(verb, args = {}) {
  const headers = { "content-type": "application/json", ...(me.csrf && { "x-csrf": me.csrf }) };
  const answer = await fetch(`/api/${verb}`, { method: "POST", body: JSON.stringify(args), headers });
  const body = await answer.json();
  if (!answer.ok) {
    const e = body.error ?? {};
    throw new Error([e.code && `[${e.code}]`, e.what, e.fix].filter(Boolean).join(" "));
  }
  return body;
}

// An element: attributes, then children; `on…` are listeners.
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.flat().filter((c) => c !== null && c !== undefined));
  return element;
}

// A text that is written only when it is another: the page stays still.
export function put(node, text, className) {
  if (node.textContent !== text) node.textContent = text;
  if (className !== undefined && node.className !== className) node.className = className;
}

// A head that begins with `#` is one of numbers; an empty one is over buttons.
export function table(caption, head, rows) {
  const cell = (text) => (text ? h("th", { scope: "col", class: text[0] === "#" ? "number" : null }, text.replace(/^#(?=.)/, ""))
    : h("td"));
  return h("table", {}, h("caption", {}, caption), h("thead", {}, h("tr", {}, head.map(cell))),
    h("tbody", {}, rows));
}

export function dialog(title, ...content) {
  const box = document.getElementById("dialog");
  box.replaceChildren(h("h2", { id: "dialog-title" }, title), ...content);
  box.setAttribute("aria-labelledby", "dialog-title");
  if (!box.open) box.showModal();
  return box;
}
