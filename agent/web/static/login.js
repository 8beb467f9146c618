// Logging in, with a password or with a one-time code.

import { ask, dialog, h, me } from "./api.js";
import { word } from "./words.js";

function field(name, type = "text", complete = "off") {
  return h("label", {}, word(name), h("input", { name, type, required: true, autocomplete: complete }));
}

function form(verb, button, ...fields) {
  const told = h("p", { class: "bad", role: "alert" });
  return h("form", {
    onsubmit: async (event) => {
      event.preventDefault();
      try {
        await ask(verb, Object.fromEntries(new FormData(event.target)));
        location.reload();
      } catch (error) {
        told.textContent = error.message;
      }
    },
  }, fields, told, h("div", { class: "row" },
    h("button", { class: "main" }, word(button)),
    me.role && h("button", { type: "button", onclick: () => document.getElementById("dialog").close() }, word("close"))));
}

export function openLogin() {
  const password = form("login", "login", field("user", "text", "username"), field("password", "password", "current-password"));
  const code = form("enrol", "enrol", field("code"), field("user", "text", "username"), field("password", "password", "new-password"));
  dialog(word("login"), ...(me.accounts ? [password] : []),
    h("details", { open: !me.accounts }, h("summary", {}, word("haveCode")), code));
}

export async function logOut() {
  await ask("logout");
  location.reload();
}
