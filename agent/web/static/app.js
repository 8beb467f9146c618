// The page: one stream of changes, one view at a time.

import { h, me, put, refreshMe } from "./api.js";
import { openLogin, logOut } from "./login.js";
import { VIEWS } from "./views.js";
import { age, word } from "./words.js";

// What the agent said last; `tags` is kept up to date by the stream.
const agent = { state: null, tags: new Map(), offset: 0, lost: false };
let view = null;

function strip() {
  const box = document.getElementById("strip"), s = agent.state;
  if (agent.lost || !s) {
    if (!box.querySelector(".lost")) box.replaceChildren(h("span", { class: "lost" }, word("lost")));
    return;
  }
  const waiting = Object.values(s.sinks).reduce((sum, one) => sum + one.depth, 0);
  const facts = [
    [s.gateway, "state"],
    [word(s.state), s.state === "running" ? "state good" : "state bad"],
    [s.reasons[0] ?? "", "bad"],
    [`${waiting} ${word("toSend")}`, ""],
    [s.journal.holds_h === null ? "" : `${word("holds")} ${age(s.journal.holds_h * 3600)}`, ""],
    [`${word("clock")}: ${s.clock.state}`, s.clock.state === "synced" ? "" : "warn"],
    [`${word("version")} ${s.version}`, "faint"],
  ];
  if (box.children.length !== facts.length + 1) {
    box.replaceChildren(...facts.map(() => h("span")), who());
  }
  facts.forEach(([text, name], i) => put(box.children[i], text, name));
}

function who() {
  if (me.csrf) return h("button", { onclick: logOut }, `${word("logout")} ${me.user} (${word(me.role)})`);
  return h("button", { onclick: openLogin }, word("login"));
}

// Without a configuration there is nothing to see but what is wrong with the file.
const RESCUE = ["config", "logs", "downloads"];

function navigate() {
  const all = agent.state?.state === "rescue" ? RESCUE : Object.keys(VIEWS);
  const name = all.includes(location.hash.slice(1)) ? location.hash.slice(1) : all[0];
  document.getElementById("nav").replaceChildren(...all.map((one) =>
    h("a", { href: `#${one}`, "aria-current": one === name ? "page" : null }, word(one))));
  document.title = `${word(name)} - edge-agent`;
  const main = document.getElementById("main");
  main.replaceChildren();
  view = VIEWS[name](main, agent);
  view?.(agent);
}

function listen() {
  const stream = new EventSource("/events");
  stream.onmessage = (event) => {
    const told = JSON.parse(event.data);
    const other = agent.state !== null && (agent.state.state === "rescue") !== (told.state.state === "rescue");
    if (other) { location.reload(); return; }
    const first = agent.state === null;
    agent.lost = false;
    agent.state = told.state;
    agent.offset = told.state.clock.wall_ns / 1e6 - Date.now();
    for (const [name, tag] of Object.entries(told.tags)) agent.tags.set(name, tag);
    requestAnimationFrame(() => { strip(); if (first) navigate(); else view?.(agent); });
  };
  stream.onerror = async () => {
    agent.lost = true;
    strip();
    if (stream.readyState !== EventSource.CLOSED) return;  // it comes back by itself
    const answer = await fetch("/api/me").catch(() => null);
    if (answer?.ok && (await answer.json()).role === null) openLogin();
    else setTimeout(listen, 2000);
  };
}

document.querySelector("[data-word=skip]").textContent = word("skip");
addEventListener("hashchange", navigate);
await refreshMe();
strip();
if (me.role === null) openLogin();
else listen();
