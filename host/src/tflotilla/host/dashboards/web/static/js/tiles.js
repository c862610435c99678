/**
 * Tiles of boards, a thousand of them: only those in sight are drawn.
 *
 * Rules: a tile out of sight is remembered as changed and drawn when it comes into sight; ages are counted on by the
 * server's clock; figures of a board that is silent or away are greyed and carry their age. What it does NOT do: choose
 * which tiles are shown, and in which order.
 */

import { h, setAttribute, setShown, setText, statusMark } from "./dom.js";
import * as format from "./format.js";
import { boardAddress } from "./router.js";

/** Drawn at once, before the browser can tell which are in sight. */
const FIRST = 80;
const AWAY = new Set(["offline", "silent", "unknown"]);

export class Tiles {
  constructor(store) {
    this._store = store;
    this._views = new Map();
    this._visible = new Set();
    this._drawn = 0;
    this._observer = new IntersectionObserver((entries) => this._sighted(entries), { rootMargin: "300px 0px" });
  }

  close() {
    this._observer.disconnect();
  }

  /** The element of a board's tile, made if need be. */
  element(board) {
    let view = this._views.get(board);
    if (view === undefined) {
      view = new TileView(board);
      this._views.set(board, view);
      this._observer.observe(view.element);
      view.dirty = true;
      if (this._drawn < FIRST) {
        this._drawn += 1;
        this._draw(view);
      } else view.name(board);
    }
    return view.element;
  }

  /** Draw those of the changed boards that are in sight. */
  changed(boards) {
    for (const board of boards) {
      const view = this._views.get(board);
      if (view === undefined) continue;
      if (this._visible.has(view)) this._draw(view);
      else view.dirty = true;
    }
  }

  /** Count the ages on. */
  tick() {
    for (const view of this._visible) view.age(this._store.tiles.get(view.board), this._store.now());
  }

  /** Forget boards that are gone. */
  prune() {
    for (const [board, view] of this._views) {
      if (this._store.tiles.has(board)) continue;
      this._observer.unobserve(view.element);
      this._visible.delete(view);
      this._views.delete(board);
    }
  }

  _sighted(entries) {
    for (const entry of entries) {
      const view = this._views.get(entry.target.dataset.board);
      if (view === undefined) continue;
      if (!entry.isIntersecting) this._visible.delete(view);
      else {
        this._visible.add(view);
        if (view.dirty) this._draw(view);
        else view.age(this._store.tiles.get(view.board), this._store.now());
      }
    }
  }

  _draw(view) {
    const tile = this._store.tiles.get(view.board);
    if (tile !== undefined) view.draw(tile, this._store.now());
  }
}

class TileView {
  constructor(board) {
    this.board = board;
    this.dirty = true;
    this._parts = null;
    this._link = h("a", { href: boardAddress(board) });
    this.element = h("li", { class: "tile", "data-board": board }, this._link);
  }

  /** Just the name, so that it can be found by the browser's own search before it is drawn. */
  name(board) {
    setText(this._link, board);
  }

  draw(tile, now) {
    this.dirty = false;
    const parts = (this._parts ??= this._build());
    parts.status.update(tile.status);
    setAttribute(this.element, "data-hurts", Boolean(tile.why));
    setAttribute(this.element, "data-old", AWAY.has(tile.status));
    setText(parts.model, tile.model ?? "no bundle");
    setText(parts.runtime, runtimeOf(tile));
    setText(parts.p50, format.latency(tile.p50_ms));
    setText(parts.p99, format.latency(tile.p99_ms));
    setText(parts.rate, format.rate(tile.rate));
    setText(parts.temperature, format.temperature(tile.temperature_c));
    setShown(parts.throttled, tile.throttled === true);
    setText(parts.top, tile.top ? `${tile.top.label} ${format.percent(tile.top.score)}` : "");
    const line = tile.why ?? (tile.deployment && !FINAL.has(tile.deployment.state) ? progress(tile.deployment) : null);
    setText(parts.why, line ?? "");
    setAttribute(parts.why, "title", line);
    setShown(parts.why, line !== null);
    setShown(parts.top, line === null);
    this.age(tile, now);
  }

  age(tile, now) {
    if (this._parts === null || tile === undefined) return;
    const old = AWAY.has(tile.status);
    setText(this._parts.age, old && tile.seen ? `as of ${format.ago(tile.seen, now)}` : format.ago(tile.seen, now));
  }

  _build() {
    const figure = (word, className = word) => {
      const value = h("span", { class: `value ${className}` });
      return [h("span", { class: "figure" }, h("span", { class: "key", text: word }), " ", value), value];
    };
    const status = statusMark();
    const [p50, p50Value] = figure("p50");
    const [p99, p99Value] = figure("p99");
    const [rate, rateValue] = figure("rate");
    const [heat, heatValue] = figure("temp");
    const parts = {
      status, p50: p50Value, p99: p99Value, rate: rateValue, temperature: heatValue,
      age: h("span", { class: "age" }),
      model: h("span", { class: "model" }),
      runtime: h("span", { class: "runtime" }),
      throttled: h("span", { class: "flag", text: "throttled" }),
      top: h("span", { class: "top" }),
      why: h("span", { class: "why" }),
    };
    this._link.replaceChildren(
      h("span", { class: "first" }, h("strong", { text: this.board }), " ", status.element),
      h("span", { class: "second" }, parts.model, " ", parts.runtime),
      h("span", { class: "figures" }, p50, p99, rate, heat),
      h("span", { class: "last" }, h("span", { class: "note" }, parts.throttled, " ", parts.why, parts.top), " ", parts.age),
    );
    return parts;
  }
}

const FINAL = new Set(["succeeded", "failed", "rejected", "rolled_back"]);

function progress(deployment) {
  return [deployment.title, deployment.state.replaceAll("_", " "), deployment.detail].filter(Boolean).join(" · ");
}

/** `tflite-runtime 2.14.0 ×4, edgetpu`: what runs the model, short. */
export function runtimeOf(tile) {
  if (!tile.runtime) return "";
  const threads = tile.threads > 1 ? ` ×${tile.threads}` : "";
  const delegate = tile.delegate?.active ? `, ${tile.delegate.active}` : "";
  return `${tile.runtime}${threads}${delegate}`;
}
