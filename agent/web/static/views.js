// The views. Each builds itself into `main`, and gives what brings it up to date each second.

import { ask, dialog, h, may, me, put, table } from "./api.js";
import { configView, downloadsView, logsView } from "./operation.js";
import { openBacktest, openTrend } from "./trend.js";
import { age, local, number, when, word } from "./words.js";

const USABLE = (q) => q === "good" || q.startsWith("uncertain") || q === "substituted";
// What somebody should look at: neither usable, nor without a value for a known reason.
const TROUBLE = (q) => !USABLE(q) && q !== "not_applicable" && q !== "out_of_service";
const quality = (q) => (q === "good" ? "good" : USABLE(q) ? "warn" : "bad");

// Rows by key, made once and written cell by cell afterwards.
function rows(body, make) {
  const known = new Map();
  return (entries) => {
    for (const [key, one] of entries) {
      if (!known.has(key)) {
        const row = make(key);
        known.set(key, row);
        body.append(row.element);
      }
      known.get(key).show(one);
    }
    const wanted = new Set(entries.map(([key]) => key));
    for (const [key, row] of known) {
      if (wanted.has(key)) continue;
      row.element.remove();
      known.delete(key);
    }
  };
}

// A row of plain cells: `facts(one)` gives [text, class] for each.
function plain(width, facts, ...last) {
  const cells = Array.from({ length: width }, () => h("td"));
  return {
    element: h("tr", {}, cells, last.length ? h("td", {}, last) : []),
    show: (one) => facts(one).forEach(([text, name = ""], i) => put(cells[i], text, name)),
  };
}

function listing(main, caption, head, make, entries) {
  const body = h("tbody"), labels = head.map((text) => text.replace(/^#/, ""));
  const found = table(caption, head, []);
  found.tBodies[0].replaceWith(body);
  const empty = h("p", { class: "faint" }, word("none"));
  main.append(h("div", { class: "card" }, found, empty));
  const show = rows(body, (key) => {
    const row = make(key);
    labels.forEach((text, i) => { if (i && text) row.element.cells[i].dataset.label = text; });  // on a phone
    return row;
  });
  return (agent) => {
    const some = agent.state ? entries(agent) : [];
    empty.hidden = some.length > 0;
    show(some);
  };
}

// A button that asks for a verb and says how it went.
export function action(name, role, verb, args, question = false) {
  if (!may(role)) return null;
  const button = h("button", {
    onclick: async () => {
      if (question && !confirm(`${word(name)}: ${word("sure")}`)) return;
      button.disabled = true;
      try {
        await ask(verb, { by: me.user, ...args() });
      } catch (error) {
        dialog(word(name), h("p", { class: "bad", role: "alert" }, error.message), closing());
      }
      button.disabled = false;
    },
  }, word(name));
  return button;
}

const closing = () => h("button", { onclick: () => document.getElementById("dialog").close() }, word("close"));

function overview(main) {
  const reasons = h("ul"), warnings = h("ul"), facts = h("p", { class: "faint" });
  const warned = h("div", { class: "card" }, h("h2", {}, word("warnings")), warnings);
  main.append(h("h1", {}, word("overview")), h("div", { class: "card" }, reasons, facts), warned);
  const bad = tagList(main, word("badTags"), (agent) => [...agent.tags].filter(([, tag]) => TROUBLE(tag.q)));
  const devices = deviceList(main), alarms = alarmList(main);
  const texts = (list, some) => {
    if (list.dataset.of === some.join("\n")) return;
    list.dataset.of = some.join("\n");
    list.replaceChildren(...some.map((text) => h("li", {}, text)));
  };
  return (agent) => {
    const s = agent.state;
    if (!s) return;
    texts(reasons, s.reasons.length ? s.reasons : [word("running")]);
    texts(warnings, s.warnings);
    warned.hidden = s.warnings.length === 0;
    const memory = s.system.rss_bytes === null ? "-" : `${(s.system.rss_bytes / 1e6).toFixed(0)} MB`;
    put(facts, `${word("up")} ${age(s.uptime_s)} | ${word("cpu")} ${number(s.system.cpu_percent, 2)} % | ${word("memory")} ${memory}`);
    bad(agent);
    devices(agent);
    alarms(agent);
  };
}

function deviceList(main) {
  return listing(main, word("devices"),
    [word("device"), word("state"), word("endpoint"), word("error"), `#${word("restarts")}`, ""],
    (name) => plain(5, (d) => {
      const well = d.state === "running" && d.connected !== false;
      return [[name], [well ? word("connected") : d.state === "running" ? word("notConnected") : d.state, well ? "good" : "bad"],
        [d.endpoint ?? "-"], [d.last_error || "-", d.last_error ? "bad" : "faint"], [String(d.restarts), "number"]];
    }, action("maintenance", "technician", "maintenance", () => ({ device: name, for_s: 3600 }), true)),
    (agent) => Object.entries(agent.state.devices));
}

function alarmList(main) {
  return listing(main, word("alarms"),
    [word("alarm"), word("tag"), word("since"), `#${word("priority")}`, `#${word("value")}`, `#${word("limit")}`, word("text"), ""],
    (name) => {
      const named = () => ({ name });
      return plain(7, (a) => [
        [name, a.active ? "bad" : "warn"], [a.tag], [when(a.since_ns ?? 0)], [String(a.priority), "number"],
        [number(a.value), "number"], [number(a.limit), "number"], [`${a.text ?? ""}${a.acked ? " (ack)" : ""}`],
      ], h("div", { class: "row" },
        action("ack", "technician", "alarms.ack", named),
        action("shelve", "technician", "alarms.shelve", () => ({ name, for_s: 3600 })),
        action("confirm", "technician", "alarms.confirm", named),
        action("dismiss", "technician", "alarms.dismiss", named)));
    },
    (agent) => agent.state.alarms.map((a) => [a.alarm, a]));
}

function tags(main) {
  const filter = h("input", { type: "search", id: "filter", placeholder: word("filter"), "aria-label": word("filter") });
  main.append(h("h1", {}, word("tags")), h("div", { class: "row" }, filter));
  const part = (own) => (agent) => [...agent.tags].filter(([name]) =>
    name.startsWith("agent/") === own && name.toLowerCase().includes(filter.value.toLowerCase()));
  const plant = tagList(main, word("tags"), part(false)), own = tagList(main, word("ownTags"), part(true));
  return (agent) => { plant(agent); own(agent); };
}

function tagList(main, caption, chosen) {
  return listing(main, caption,
    [word("tag"), `#${word("value")}`, word("unit"), word("quality"), `#${word("age")}`, ""],
    (name) => {
      const value = h("td", { class: "number" }), unit = h("td"), q = h("td"), old = h("td", { class: "number" });
      const open = h("button", { class: "link", onclick: () => openTrend(name) }, name);
      const element = h("tr", {}, h("td", {}, open), value, unit, q, old,
        h("td", {}, h("button", { class: "link", onclick: () => openReason(name) }, word("why"))));
      return {
        element,
        show: ([tag, offset]) => {
          const seconds = (Date.now() + offset - tag.ts_ns / 1e6) / 1000;
          put(value, tag.text ?? number(tag.value));
          put(unit, tag.unit);
          put(q, tag.q, quality(tag.q));
          put(old, age(Math.max(0, seconds)), seconds > 60 ? "number warn" : "number");
          const className = USABLE(tag.q) ? "" : "off";
          if (element.className !== className) element.className = className;
        },
      };
    },
    (agent) => chosen(agent).map(([name, tag]) => [name, [tag, agent.offset]]));
}

// A fact of `explain`: a sample, a list, or plain.
function spelt(fact) {
  if (typeof fact !== "object") return String(fact);
  if (Array.isArray(fact)) return fact.join(", ");
  if (fact.ts_ns === undefined) return JSON.stringify(fact);
  return `${number(fact.value)} ${fact.unit} ${fact.q}, ${age(fact.age_s)}`;
}

// Where a tag comes from, how it is decoded, how it fares and why: `edge-agent explain`.
async function openReason(name) {
  const body = h("pre", { tabindex: "0" }, "...");
  const read = h("div", { class: "row" }, closing());
  dialog(name, body, read);
  try {
    const told = await ask("explain", { tag: name });
    body.textContent = Object.entries(told).filter(([, v]) => v !== null && v !== "")
      .map(([k, v]) => `${k}: ${spelt(v)}`).join("\n");
    const button = action("read", "technician", "read", () => ({ tag: name }));
    if (button) read.prepend(button);
  } catch (error) {
    body.textContent = error.message;
  }
}

function models(main) {
  main.append(h("h1", {}, word("models")));
  const serving = listing(main, word("models"),
    [word("instance"), word("model"), word("version"), word("stage"), `#${word("score")}`, `#${word("latency")}`, word("drift"), word("error"), ""],
    (name) => {
      let model = "";
      const row = plain(8, (m) => {
        model = m.model;
        return [[name], [m.model], [m.version ? `${m.version} (${m.release})` : "-"], [m.stage ?? m.state, m.stage === "active" ? "good" : m.stage ? "warn" : "bad"],
          [Object.entries(m.last_score ?? {}).map(([k, v]) => `${k} ${number(v, 4)}`).join(", ") || "-", "number"],
          [m.p50_ms === undefined ? "-" : `${number(m.p50_ms, 3)} / ${number(m.p99_ms, 3)} ms`, "number"],
          [m.drift?.verdict ?? "-", m.drift?.verdict === "stale" ? "bad" : ""], [m.error || "-", m.error ? "bad" : "faint"]];
      }, h("div", { class: "row" },
        may("admin") ? h("button", { onclick: () => openBacktest(model) }, word("backtest")) : null,
        action("pull", "admin", "models.pull", () => ({ name: model })),
        action("promote", "admin", "models.promote", () => ({ name: model }), true),
        action("rollback", "admin", "models.rollback", () => ({ name: model }), true)));
      return row;
    },
    (agent) => Object.entries(agent.state.models));
  let versions = [], turn = 0;
  const waiting = listing(main, word("versions"),
    [word("model"), word("version"), word("candidate"), word("stage"), word("why"), word("lastCheck"), word("error")],
    (name) => plain(7, (m) => [[name], [m.version ? `${m.version} (${m.release})` : "-"], [m.candidate ?? "-"], [m.stage ?? "-"],
      [m.waits ?? "-"], [local(m.last_check)], [m.last_error || "-", m.last_error ? "bad" : "faint"]]),
    () => versions.map((m) => [m.name, m]));
  return (agent) => {
    serving(agent);
    waiting(agent);
    if (turn++ % 5 === 0) ask("models.list").then((found) => { versions = found; }, () => {});
  };
}

function uplink(main) {
  main.append(h("h1", {}, word("uplink")));
  return listing(main, word("uplink"),
    [word("sink"), word("state"), word("farEnd"), `#${word("depth")}`, `#${word("oldest")}`, `#${word("window")}`, word("error")],
    (name) => plain(7, (s) => [[name], [word(s.connected ? "connected" : "notConnected"), s.connected ? "good" : "bad"],
      [s.far_end ?? "-"], [String(s.depth), "number"], [age(s.oldest_age_s), "number"], [String(s.window), "number"],
      [s.last_error || "-", s.last_error ? "bad" : "faint"]]),
    (agent) => Object.entries(agent.state.sinks));
}

export const VIEWS = {
  overview,
  devices: (main) => { main.append(h("h1", {}, word("devices"))); return deviceList(main); },
  tags,
  alarms: (main) => { main.append(h("h1", {}, word("alarms"))); return alarmList(main); },
  models,
  uplink,
  config: configView,
  logs: logsView,
  downloads: downloadsView,
};
