// The configuration, the log, and what can be taken away.

import { ask, dialog, h, may, me, put, table } from "./api.js";
import { age, local, when, word } from "./words.js";

function planned(answer) {
  if (answer.refused) return h("pre", { class: "bad", tabindex: "0" }, answer.refused);
  const lines = answer.changes.flatMap((c) => [`${c.how} ${c.what}`, ...c.settings.map((s) => `    ${s}`)]);
  return h("div", {},
    h("pre", { tabindex: "0" }, lines.join("\n") || word("nothing")),
    answer.breaks.length ? h("div", {}, h("p", { class: "warn" }, word("breaks")),
      h("ul", {}, answer.breaks.map((text) => h("li", {}, text)))) : null);
}

export function configView(main, agent) {
  const facts = h("p"), running = h("pre", { tabindex: "0" }, "..."), verdict = h("div", { role: "status" });
  const draft = h("textarea", { id: "draft", spellcheck: "false", "aria-label": word("draft") });
  const history = h("div"), refused = h("pre", { class: "bad", tabindex: "0" });
  const broken = h("div", { class: "card" }, h("h2", {}, word("refused")), refused);
  const runs = h("div", {}, h("h2", {}, word("running_file")), running);
  const check = async () => {
    try {
      verdict.replaceChildren(planned(await ask("config.plan", draft.value.trim() ? { text: draft.value } : {})));
    } catch (error) {
      verdict.textContent = error.message;
    }
  };
  const apply = async () => {
    try {
      const answer = await ask("reload", { by: me.user });
      verdict.replaceChildren(h("pre", { tabindex: "0" }, answer.refused ?? JSON.stringify(answer, null, 1)));
    } catch (error) {
      verdict.textContent = error.message;
    }
  };
  main.append(h("h1", {}, word("config")),
    broken, h("div", { class: "card" }, facts, runs),
    h("div", { class: "card" }, h("h2", {}, word("draft")), draft, h("div", { class: "row" },
      h("button", { onclick: check }, word("check")),
      may("admin") ? h("button", { class: "main", onclick: apply }, word("apply")) : null), verdict),
    h("div", { class: "card" }, history));
  load();
  async function load() {
    try {
      if (!agent.state?.config.refused) running.textContent = (await ask("config.text")).text;
      const ran = await ask("config.history");
      history.replaceChildren(table(word("history"), ["#", word("since"), word("by"), word("verdict"), word("digest"), word("why")],
        ran.reverse().map((one) => h("tr", {}, [one.n, when(one.at_ns), one.by, one.verdict, one.digest, one.why].map((c) => h("td", {}, String(c)))))));
    } catch (error) {
      running.textContent = error.message;
    }
  }
  return (agent) => {
    const c = agent.state?.config;
    if (!c) return;
    put(refused, c.refused);
    broken.hidden = !c.refused;
    runs.hidden = !broken.hidden;
    if (c.refused) { put(facts, c.path); return; }
    const on = c.probation ? ` | ${word("probation")}: ${age(c.probation.left_s)}` : "";
    facts.textContent = `${c.path} | ${word("digest")} ${c.digest} | ${when(c.loaded_at)}${c.last_good ? ` | ${word("last_good")}` : ""}${c.changed_on_disk ? ` | ${word("changed_on_disk")}` : ""}${on}`;
  };
}

export function logsView(main) {
  const level = h("select", { id: "level", "aria-label": word("level"), onchange: () => load() },
    ["debug", "info", "warning", "error"].map((name) => h("option", { selected: name === "info" }, name)));
  const body = h("pre", { tabindex: "0", "aria-label": word("logs") }, "...");
  main.append(h("h1", {}, word("logs")), h("div", { class: "row" }, h("label", { for: "level" }, word("level")), level),
    h("div", { class: "card" }, body));
  async function load() {
    try {
      const lines = await ask("logs", { level: level.value, limit: 200 });
      body.textContent = lines.map(({ time, level: l, event, ...rest }) =>
        `${local(time)} ${l.padEnd(8)} ${event}  ${Object.entries(rest).map(([k, v]) => `${k}=${v}`).join(" ")}`).join("\n") || word("none");
    } catch (error) {
      body.textContent = error.message;
    }
  }
  let turn = 0;
  return () => { if (turn++ % 5 === 0) load(); };
}

export function downloadsView(main, agent) {
  const names = [...agent.tags.keys()];
  const tags = h("select", { id: "tags", multiple: true, size: 12, "aria-label": word("tags") }, names.map((n) => h("option", {}, n)));
  const hours = h("select", { id: "hours", "aria-label": word("hours") }, [1, 8, 24, 168].map((n) => h("option", { value: n }, `${n} h`)));
  const get = (format) => () => {
    const chosen = [...tags.selectedOptions].map((o) => o.value);
    if (!chosen.length) { dialog(word("downloads"), h("p", { role: "alert" }, word("none")), h("button", { onclick: () => document.getElementById("dialog").close() }, word("close"))); return; }
    const query = new URLSearchParams([...chosen.map((t) => ["tag", t]), ["from", `${hours.value}h`], ["format", format]]);
    location.href = `/download/export?${query}`;
  };
  main.append(h("h1", {}, word("downloads")),
    h("div", { class: "card" }, h("h2", {}, word("tags")), h("p", {}, word("exportText")), tags,
      h("div", { class: "row" }, hours, h("button", { onclick: get("csv") }, word("csv")), h("button", { onclick: get("parquet") }, word("parquet")))),
    h("div", { class: "card" }, h("h2", {}, word("bundle")), h("p", {}, word("bundleText")),
      h("a", { href: "/download/bundle", download: true }, word("bundle"))));
  return null;
}
