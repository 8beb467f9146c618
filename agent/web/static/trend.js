// Charts: the past of a tag, and a back-test. uPlot draws them.

import { ask, dialog, h } from "./api.js";
import { number, when, word } from "./words.js";

const BLUE = "#0b5c7a", RED = "#a61b1b";

const closing = () => h("button", { onclick: () => document.getElementById("dialog").close() }, word("close"));

function draw(box, data, series, options = {}) {
  box.replaceChildren();
  const label = `${word("time")} ${when(Date.now() * 1e6).slice(-6)}`;
  const time = { label, value: (_, s) => (s === null ? "-" : when(s * 1e9)) };
  return new uPlot({ width: box.clientWidth || 700, height: 300, series: [time, ...series], ...options }, data, box);
}

// Minimum, mean and maximum, downsampled by the store.
export async function openTrend(name) {
  const box = h("div", { class: "chart", role: "img", "aria-label": `${word("trend")} ${name}` });
  const told = h("p", { role: "status" });
  const hours = h("select", { "aria-label": word("hours"), onchange: () => load() },
    [1, 8, 24, 24 * 7].map((n) => h("option", { value: n, selected: n === 8 }, `${n} h`)));
  dialog(name, h("div", { class: "row" }, hours, closing()), box, told);
  async function load() {
    try {
      const to = Date.now() * 1e6;
      const found = await ask("trend", { tag: name, from_ns: Math.round(to - hours.value * 3600e9), points: 800 });
      const t = found.t_ns.map((ns) => ns / 1e9);
      draw(box, [t, found.min, found.mean, found.max], [
        { label: "min", stroke: BLUE, width: 1 }, { label: "mean", stroke: BLUE, width: 2 },
        { label: "max", stroke: BLUE, width: 1, }], { bands: [{ series: [3, 1], fill: "rgba(11, 92, 122, .15)" }] });
      const samples = found.samples.reduce((sum, n) => sum + n, 0);
      told.textContent = t.length ? `${number(samples)} samples` : word("none");
    } catch (error) {
      told.textContent = error.message;
    }
  }
  await load();
}

// Candidate and champion over the last week of the gateway's own history.
export async function openBacktest(model) {
  const box = h("div", { class: "chart", role: "img", "aria-label": `${word("backtest")} ${model}` });
  const told = h("pre", { tabindex: "0" }, "...");
  const machine = h("select", { "aria-label": word("instance") });
  dialog(`${word("backtest")} ${model}`, h("div", { class: "row" }, machine, closing()), box, told);
  try {
    const { series, ...facts } = await ask("models.backtest", { name: model });
    told.textContent = JSON.stringify(facts, null, 1);
    machine.replaceChildren(...series.map((one, n) => h("option", { value: n }, one.instance)));
    machine.onchange = () => {
      const one = series[machine.value];
      if (one) draw(box, [one.t_ns.map((ns) => ns / 1e9), one.champion, one.candidate],
        [{ label: "champion", stroke: BLUE }, { label: "candidate", stroke: RED }]);
    };
    machine.onchange();
  } catch (error) {
    told.textContent = error.message;
  }
}
