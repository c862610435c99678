/**
 * Benchmarks: two saved runs held against each other, figure by figure, with how their latencies are distributed.
 *
 * Rules: the verdict is the server's (a significance test and an interval of the ratio), never made here; which two runs
 * are compared stands in the address, so that it can be sent to somebody.
 */

import { h, keyed, scroller, setAttribute, setShown, setText } from "../dom.js";
import * as format from "../format.js";
import { distribution } from "../plots.js";

const WORDS = { p50: "p50", p90: "p90", p99: "p99", qps: "Rate", rss: "Memory" };
const VERDICTS = { regression: "bad", improvement: "good", unchanged: "unknown", broken: "bad", incomparable: "warn" };

export function mount(root, app, { query }) {
  return new BenchmarksPage(root, app, query);
}

class BenchmarksPage {
  constructor(root, app, query) {
    this.title = "Benchmarks";
    this._app = app;
    this._closed = false;
    this._curves = [];
    this._wanted = { base: query.get("base"), new: query.get("new") };
    this._problem = h("p", { class: "problem", role: "status" });
    this._none = h("p", { class: "soft", hidden: true, text: "No benchmark was saved yet: `tflotilla benchmark SELECTOR --models A B --save` keeps one." });
    this._choices = Object.fromEntries(["base", "new"].map((side) =>
      [side, h("select", { "aria-label": side === "base" ? "Base run" : "New run", on: { change: () => void this._compare() } })]));
    this._chooser = h("form", { class: "toolbar", hidden: true, on: { submit: (event) => event.preventDefault() } },
      h("label", { class: "choice" }, h("span", { text: "Base" }), this._choices.base),
      h("label", { class: "choice" }, h("span", { text: "Held against it" }), this._choices.new));
    this._heading = h("p", { class: "served", role: "status" });
    this._pairs = h("div", { class: "cards" });
    this._runs = h("tbody");
    this._table = h("section", { class: "card whole", hidden: true }, h("h2", { tabindex: "-1", text: "Saved runs" }),
      scroller("Saved runs", h("table", {},
        h("caption", { class: "unseen", text: "Saved runs, the newest first" }),
        h("thead", {}, h("tr", {}, ["Run", "Saved", "Boards", "Models", "Tool", "Configurations"].map((word, index) => h("th", { scope: "col", class: index === 5 ? "figure" : null, text: word })))),
        this._runs)));
    root.append(h("h1", { text: "Benchmarks" }), this._problem, this._none, this._chooser, this._heading, this._pairs, this._table);
    app.feed.follow();
    void this._begin();
  }

  unmount() {
    this._closed = true;
    this._clear();
  }

  escape() {
    location.hash = "#/";
    return true;
  }

  async _begin() {
    let found;
    try {
      found = (await this._app.get("api/benchmarks")).runs;
    } catch (error) {
      if (!this._closed) setText(this._problem, error.message);
      return;
    }
    if (this._closed) return;
    setShown(this._none, found.length === 0);
    setShown(this._table, found.length > 0);
    setShown(this._chooser, found.length > 1);
    const now = this._app.store.now();
    keyed(this._runs, (run) => run.id, (run) => ({
      element: h("tr", {}, h("th", { scope: "row", text: nameOf(run) }), h("td", { text: format.clock(run.created, now) }),
        h("td", { text: run.boards.join(", ") }), h("td", { text: run.models.join(", ") }), h("td", { text: run.tool }),
        h("td", { class: "figure", text: format.count(run.cells) })),
      update: () => {},
    }))(found);
    for (const [side, select] of Object.entries(this._choices)) {
      select.append(...found.map((run) => h("option", { value: run.id, text: `${nameOf(run)}, ${format.clock(run.created, now)}` })));
      // The newest against the one before, unless the address says otherwise.
      select.value = found.some((run) => run.id === this._wanted[side]) ? this._wanted[side] : found[side === "base" ? 1 : 0]?.id ?? "";
    }
    if (found.length > 1) await this._compare();
  }

  async _compare() {
    const [base, held] = [this._choices.base.value, this._choices.new.value];
    const query = new URLSearchParams({ base, new: held });
    history.replaceState(null, "", `#/benchmarks?${query}`);
    let found;
    try {
      found = await this._app.get(`api/benchmarks/compare?${query}`);
    } catch (error) {
      if (!this._closed) {
        this._clear();
        setText(this._heading, "");
        setText(this._problem, error.message);
      }
      return;
    }
    // Another pair was chosen while this one was on its way.
    if (this._closed || base !== this._choices.base.value || held !== this._choices.new.value) return;
    setText(this._problem, "");
    setText(this._heading, found.heading);
    this._clear();
    this._pairs.append(...found.rows.map((row) => this._pair(row, found)));
    for (const { place, row } of this._curves) place.plot = distribution(place.element, this._app, curvesOf(row, found));
  }

  _clear() {
    for (const { place } of this._curves) place.plot?.close();
    this._curves = [];
    this._pairs.replaceChildren();
  }

  _pair(row, found) {
    const title = `${row.board}, ${row.model}, ${row.configuration}`;
    const place = { element: h("div", {}), plot: null };
    if (row.cdf && (row.cdf.base || row.cdf.new)) this._curves.push({ place, row });
    const said = [row.broken, row.incomparable, ...(row.notes ?? [])].filter(Boolean);
    return h("section", { class: "card", "aria-label": title },
      h("h2", { tabindex: "-1" }, title, " ", verdict(row.outcome)),
      said.map((text) => h("p", { class: row.broken ? "reason" : "soft", text })),
      row.figures.length > 0 && scroller(`${title}: figures`, h("table", {},
        h("caption", { class: "unseen", text: `${title}: ${found.new} held against ${found.base}` }),
        h("thead", {}, h("tr", {}, ["", "Base", "New", "Ratio", "99 % interval", "Verdict"].map((word, index) =>
          h("th", { scope: "col", class: index > 0 && index < 5 ? "figure" : null }, index === 0 ? h("span", { class: "unseen", text: "Figure" }) : word)))),
        h("tbody", {}, row.figures.map((figure) => h("tr", { title: figure.note },
          h("th", { scope: "row", text: WORDS[figure.metric] ?? figure.metric }),
          h("td", { class: "figure", text: inUnits(figure.metric, figure.base) }), h("td", { class: "figure", text: inUnits(figure.metric, figure.new) }),
          h("td", { class: "figure", text: ratio(figure.ratio) }),
          h("td", { class: "figure", text: figure.low === null || figure.high === null ? format.UNKNOWN : `${ratio(figure.low)} to ${ratio(figure.high)}` }),
          h("td", {}, verdict(figure.outcome))))))),
      place.element);
  }
}

const nameOf = (run) => run.name ?? run.id.slice(0, 8);
const ratio = (value) => (value === null ? format.UNKNOWN : `×${value.toFixed(3)}`);

function inUnits(metric, value) {
  if (value === null) return format.UNKNOWN;
  return metric === "qps" ? format.rate(value) : metric === "rss" ? format.bytes(value) : format.latency(value / 1e6);
}

function verdict(outcome) {
  const element = h("span", { class: "status" }, h("span", { class: "shape", "aria-hidden": "true" }), h("span", { text: outcome }));
  setAttribute(element, "data-status", VERDICTS[outcome] ?? "unknown");
  return element;
}

function curvesOf(row, found) {
  return {
    label: `How the latencies of ${row.board}, ${row.configuration} are distributed`,
    curves: [["base", found.base, "stage-decode"], ["new", found.new, "stage-preprocess"]]
      .filter(([side]) => row.cdf[side] !== null)
      .map(([side, name, className]) => ({ name, class: className, points: row.cdf[side] })),
  };
}
