/**
 * One board, live: latency by stage, what it answers and how surely, what it is and what was done to it.
 *
 * Rules: figures of a board that is silent or away are greyed and say since when; the stream of predictions can be stopped,
 * to be read. After a break of the stream everything is fetched anew, so curves have no holes that only this page has.
 */

import { h, setAttribute, setShown, setText, statusMark } from "../dom.js";
import * as format from "../format.js";
import { moveFocus } from "../keys.js";
import { modelAddress } from "../router.js";
import { runtimeOf } from "../tiles.js";
import { answers, latencies, load } from "./board_live.js";
import { benchmark, deployments, events, facts, modelCard } from "./board_facts.js";

const AWAY = new Set(["offline", "silent", "unknown"]);

export function mount(root, app, { parameter }) {
  return new BoardPage(root, app, parameter);
}

class BoardPage {
  constructor(root, app, board) {
    this.title = board;
    this._app = app;
    this._board = board;
    this._root = root;
    this._detail = null;
    this._fetching = false;
    this._opened = app.store.opened;
    this._closed = false;
    this._build();
    app.feed.follow(board, (event) => this._take(event));
    this._leave = app.store.subscribe((kinds, boards) => this._hear(kinds, boards));
    this._drawHead();
    void this._fetch();
  }

  unmount() {
    this._closed = true;
    this._leave();
    this._latencies.close();
    this._load.close();
  }

  escape() {
    location.hash = "#/";
    return true;
  }

  move(step) {
    moveFocus(this._root, "h2[tabindex]", step);
  }

  _build() {
    const app = this._app;
    this._mark = statusMark();
    this._labels = h("span", { class: "labels" });
    this._why = h("p", { class: "reason" });
    this._old = h("p", { class: "old", role: "status" });
    this._problem = h("p", { class: "problem", role: "alert" });
    this._bench = h("button", { type: "button", text: "Benchmark…", on: { click: () => void this._benchmark() } });
    this._figures = Object.fromEntries(
      ["p50", "p99", "rate", "errors", "dropped", "temperature", "unsure", "seen"].map((name) => [name, h("dd", {})]));
    const words = { p50: "p50, total", p99: "p99, total", rate: "Rate", errors: "Errors", dropped: "Dropped", temperature: "Temperature", unsure: "Unsure answers", seen: "Last heard" };
    const stats = h("dl", { class: "stats" }, Object.entries(this._figures).map(([name, value]) => h("div", {}, h("dt", { text: words[name] }), value)));
    this._latencies = latencies(app);
    this._load = load(app);
    this._answers = answers(app);
    this._card = modelCard();
    this._measured = benchmark(app);
    this._facts = facts(app);
    this._deployments = deployments(app);
    this._events = events(app);
    const part = (title, className, ...content) =>
      h("section", { class: `card ${className}`, "aria-label": title }, h("h2", { tabindex: "-1", text: title }), content);
    // Two columns of their own height: beside a long list, a short card leaves no hole.
    this._live = h("div", { class: "columns" },
      h("div", {}, part("Latency by stage", "latency", this._latencies.element), part("Label mix", "mix", this._answers.mix)),
      h("div", {}, part("Rate and temperature", "load", this._load.element), part("Confidence", "scores", this._answers.scores),
        part("Answers", "stream", this._answers.stream)));
    this._rest = h("div", { class: "cards" },
      part("Model", "model", this._card.element),
      part("Benchmark", "benchmark", this._measured.element),
      part("Board", "facts", this._facts.element),
      part("Deployments", "deployments", this._deployments.element),
      part("Events", "events", this._events.element));
    this._root.append(
      h("p", { class: "crumbs" }, h("a", { href: "#/", text: "Fleet" }), " / ", h("span", { text: this._board })),
      h("div", { class: "board-head" }, h("h1", { text: this._board }), this._mark.element, this._labels, this._bench),
      this._why, this._old, this._problem, stats, this._live, this._rest);
    setShown(this._problem, false);
    setShown(this._bench, false);
  }

  async _fetch() {
    if (this._fetching) return;
    this._fetching = true;
    try {
      const detail = await this._app.get(`api/boards/${encodeURIComponent(this._board)}`);
      if (this._closed) return;
      this._detail = detail;
      setShown(this._problem, false);
      this._latencies.reset(detail.series);
      this._load.reset(detail.series);
      this._answers.reset(detail);
      this._drawDetail();
    } catch (error) {
      if (this._closed) return;
      setText(this._problem, error.message);
      setShown(this._problem, true);
      // A stream of a board that nobody knows is refused; the fleet's will tell when it is heard of.
      if (error.status === 404) this._app.feed.follow();
    } finally {
      this._fetching = false;
    }
  }

  /** What the stream says of this board alone. */
  _take(event) {
    if (this._detail === null) return;
    if (event.points?.length > 0) {
      this._latencies.add(event.points);
      this._load.add(event.points);
    }
    this._answers.add(event.predictions ?? [], event.thumbnail ?? null);
    if (event.detail) this._detail = { ...this._detail, ...event.detail };
    else if (event.events?.length > 0) this._detail.events = merged(event.events, this._detail.events);
    if (event.detail || event.events?.length > 0) this._drawDetail();
  }

  _hear(kinds, boards) {
    const { store } = this._app;
    if (store.opened !== this._opened) {
      this._opened = store.opened;
      void this._fetch();
    } else if (this._detail === null && boards.has(this._board)) {
      this._app.feed.follow(this._board, (event) => this._take(event));
    }
    if (kinds.has("fleet") || kinds.has("tick") || kinds.has("source") || boards.has(this._board)) this._drawHead();
  }

  _drawHead() {
    const { store, actions } = this._app;
    const tile = store.tiles.get(this._board) ?? this._detail?.tile ?? null;
    setShown(this._bench, actions.possible);
    if (tile === null) return;
    const old = AWAY.has(tile.status);
    this._mark.update(tile.status);
    const labels = Object.entries(tile.labels ?? {}).map(([key, value]) => `${key}=${value}`);
    if (tile.known === false) labels.push("not in fleet.toml");
    if (this._labels.dataset.now !== labels.join("\n")) {
      this._labels.dataset.now = labels.join("\n");
      this._labels.replaceChildren(...labels.map((label) => h("span", { class: "tag", text: label })));
    }
    setText(this._why, tile.why ?? "");
    setShown(this._why, Boolean(tile.why));
    setText(this._old, old ? (tile.seen ? `Figures are as of ${format.ago(tile.seen, store.now())}.` : "Nothing was heard of this board yet.") : "");
    setShown(this._old, old);
    this._root.classList.toggle("is-old", old);
    const values = {
      p50: format.latency(tile.p50_ms), p99: format.latency(tile.p99_ms), rate: format.rate(tile.rate),
      errors: format.count(tile.errors), dropped: format.count(tile.dropped), unsure: format.percent(tile.low_confidence_share),
      temperature: `${format.temperature(tile.temperature_c)}${tile.throttled ? " · throttled" : ""}`,
      seen: format.ago(tile.seen, store.now()),
    };
    for (const [name, value] of Object.entries(values)) setText(this._figures[name], value);
    setAttribute(this._figures.temperature.parentElement, "data-bad", tile.throttled === true);
    setAttribute(this._figures.errors.parentElement, "data-bad", tile.errors > 0);
    setAttribute(this._figures.dropped.parentElement, "data-bad", tile.dropped > 0);
  }

  _drawDetail() {
    const detail = this._detail;
    this._latencies.stages(detail.stages ?? {});
    this._answers.sums(detail);
    this._card.update(detail, modelAddress, runtimeOf);
    this._measured.update(detail.benchmark ?? null);
    this._facts.update(detail);
    this._deployments.update(detail.deployments ?? []);
    this._events.update(detail.events ?? []);
    this._drawHead();
  }

  async _benchmark() {
    await this._app.actions.ask({
      title: `Benchmark ${this._board}?`,
      sentence: "The board measures the bundle that serves, beside its work: answers come later while it does.",
      confirm: this._board, does: "Benchmark", done: `${this._board} was asked for a benchmark.`,
      path: `api/boards/${encodeURIComponent(this._board)}/benchmark`,
    });
  }
}

/** Newest first, each once. */
function merged(newer, older) {
  const seen = new Set();
  return [...newer, ...older]
    .filter((event) => {
      const key = JSON.stringify([event.time, event.kind, event.message]);
      return !seen.has(key) && seen.add(key);
    })
    .sort((a, b) => (b.time ?? 0) - (a.time ?? 0))
    .slice(0, 20);
}
