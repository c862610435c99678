/**
 * The fleet: rollouts that are under way, and every board as a tile, filtered, grouped, and sorted by what hurts.
 *
 * Rules: what was chosen stands in the address, so it can be sent to somebody; tiles don't jump about under a pointer or a
 * focus, and otherwise change places every few seconds at most.
 */

import { h, keyed, setAttribute, setChildren, setShown, setText, statusKind } from "../dom.js";
import { compile } from "../filter.js";
import { count, plural } from "../format.js";
import { moveFocus } from "../keys.js";
import { over, strip } from "../rollouts.js";
import { Tiles } from "../tiles.js";

const REORDER_MS = 4000;
const POINTER_HOLDS_MS = 3000;
const OTHERS = "\uffff";

const down = (value) => (tile) => {
  const found = value(tile);
  return typeof found === "number" ? -found : Number.POSITIVE_INFINITY;
};
const SORTS = {
  hurt: ["What hurts", down((tile) => tile.hurt)],
  p99: ["p99, slowest first", down((tile) => tile.p99_ms)],
  name: ["Name", () => 0],
  temperature: ["Temperature, hottest first", down((tile) => tile.temperature_c)],
  seen: ["Last seen, longest ago first", (tile) => tile.seen ?? Number.NEGATIVE_INFINITY],
  rate: ["Rate, fastest first", down((tile) => tile.rate)],
};
const byName = new Intl.Collator("en", { numeric: true }).compare;

/** What was chosen when this page was left; coming back without an address of one's own finds it again. */
let remembered = { filter: "", group: "", sort: "hurt" };

let marked = false;

export function mount(root, app, { query }) {
  return new FleetPage(root, app, query);
}

class FleetPage {
  constructor(root, app, query) {
    this.title = "Fleet";
    this._app = app;
    this._store = app.store;
    this._chosen = { ...remembered };
    for (const key of Object.keys(remembered)) if (query.has(key)) this._chosen[key] = query.get(key);
    if (!Object.hasOwn(SORTS, this._chosen.sort)) this._chosen.sort = "hurt";
    this._tiles = new Tiles(app.store);
    this._arrangedAt = 0;
    this._pointerAt = -POINTER_HOLDS_MS;
    this._groups = new Map();
    this._build(root);
    app.feed.follow();
    this._leave = app.store.subscribe((kinds, boards) => this._hear(kinds, boards));
    if (app.store.loaded) this._hear(new Set(["fleet", "rollouts"]), new Set());
  }

  unmount() {
    this._leave();
    this._tiles.close();
  }

  move(step) {
    moveFocus(this._boards, ".tile > a", step);
  }

  search() {
    this._filter.focus();
    this._filter.select();
  }

  escape() {
    if (this._boards.contains(document.activeElement)) document.activeElement.blur();
    else if (this._chosen.filter !== "") this._choose({ filter: "" });
    else return false;
    return true;
  }

  _build(root) {
    const select = (name, word, given) =>
      h("label", { class: "choice" }, h("span", { text: word }),
        h("select", { name, on: { change: (event) => this._choose({ [name]: event.target.value }) } }, given));
    this._filter = h("input", {
      type: "search", id: "filter", placeholder: "room=kitchen, pi-*, offline…", autocomplete: "off", autocapitalize: "off",
      spellcheck: "false", "aria-describedby": "filter-problem", on: { input: () => this._choose({ filter: this._filter.value }) },
    });
    this._problem = h("span", { class: "problem", id: "filter-problem", role: "status" });
    this._group = select("group", "Group by", []);
    this._sort = select("sort", "Sort by", Object.entries(SORTS).map(([value, [word]]) => h("option", { value, text: word })));
    this._counts = h("ul", { class: "counts", "aria-label": "Boards by status" });
    this._rolloutsProblem = h("p", { class: "problem", role: "status" });
    this._strips = h("div", { class: "strips" });
    this._rollouts = h("section", { "aria-labelledby": "rollouts-title" },
      h("h2", { id: "rollouts-title", text: "Rollouts under way" }), this._rolloutsProblem, this._strips);
    this._boards = h("div", { class: "boards", on: { pointermove: () => (this._pointerAt = performance.now()) } });
    this._shownCount = h("span", { class: "soft" });
    this._held = h("span", { class: "soft held", text: "Order held while you are in it" });
    this._updateStrips = keyed(this._strips, (row) => row.id, (row) => strip(this._app, row));
    this._updateCounts = keyed(this._counts, (each) => each.filter, (each) => this._countView(each));
    root.append(
      h("h1", { class: "unseen", text: "Fleet" }),
      this._rollouts,
      h("section", { "aria-labelledby": "boards-title" },
        h("div", { class: "bar-title" }, h("h2", { id: "boards-title", text: "Boards" }), this._shownCount, this._held),
        this._counts,
        h("form", { class: "toolbar", role: "search", on: { submit: (event) => event.preventDefault() } },
          h("label", { class: "choice wide" }, h("span", { text: "Filter" }), this._filter), this._group, this._sort, this._problem),
        this._boards),
    );
    setShown(this._rollouts, false);
    setShown(this._held, false);
    this._sort.querySelector("select").value = this._chosen.sort;
    this._filter.value = this._chosen.filter;
    if (!this._store.loaded) this._boards.append(h("p", { class: "soft waiting", text: "Waiting for the fleet…" }));
  }

  _choose(change) {
    Object.assign(this._chosen, change);
    remembered = { ...this._chosen };
    if (this._filter.value !== this._chosen.filter) this._filter.value = this._chosen.filter;
    const query = new URLSearchParams();
    for (const [key, value] of Object.entries(this._chosen)) if (value && value !== "hurt") query.set(key, value);
    const text = query.toString();
    history.replaceState(null, "", text ? `#/?${text}` : "#/");
    if (this._store.loaded) this._arrange(true);
  }

  _hear(kinds, boards) {
    if (!this._store.loaded) return;
    if (kinds.has("rollouts") || kinds.has("source")) this._drawRollouts();
    if (kinds.has("fleet")) {
      this._tiles.prune();
      this._arrange(true);
    }
    this._tiles.changed(boards);
    if (kinds.has("tick")) {
      this._tiles.tick();
      this._arrange(false);
    }
  }

  _drawRollouts() {
    const open = this._store.rollouts.filter((row) => !over(row));
    setText(this._rolloutsProblem, this._store.rolloutsProblem ?? "");
    setShown(this._rollouts, open.length > 0 || this._store.rolloutsProblem !== null);
    this._updateStrips(open);
  }

  /** Put tiles where they belong; unless it is asked for, not too often and not under somebody's hand. */
  _arrange(asked) {
    const now = performance.now();
    const held = this._boards.contains(document.activeElement) || now - this._pointerAt < POINTER_HOLDS_MS;
    setShown(this._held, held && !asked);
    if (!asked && (held || now - this._arrangedAt < REORDER_MS)) return;
    this._arrangedAt = now;
    const tiles = [...this._store.tiles.values()];
    this._drawCounts(tiles);
    this._drawGroupChoice(tiles);
    const { test, problem } = compile(this._chosen.filter, this._store.tiles);
    setText(this._problem, problem ?? "");
    setAttribute(this._filter, "aria-invalid", problem === null ? null : "true");
    const shown = tiles.filter(test);
    setText(this._shownCount, shown.length === tiles.length ? count(tiles.length) : `${count(shown.length)} of ${count(tiles.length)}`);
    this._place(this._sorted(shown));
    if (!marked) {
      // What "first useful paint" is measured by.
      marked = true;
      performance.mark("fleet-shown");
    }
  }

  _sorted(tiles) {
    const key = SORTS[this._chosen.sort][1];
    const ranked = tiles.map((tile) => [key(tile), tile]);
    ranked.sort(([a, one], [b, other]) => (a < b ? -1 : a > b ? 1 : byName(one.board, other.board)));
    return ranked.map(([, tile]) => tile);
  }

  _place(tiles) {
    const groups = new Map();
    for (const tile of tiles) {
      const value = groupOf(tile, this._chosen.group);
      if (!groups.has(value)) groups.set(value, []);
      groups.get(value).push(tile);
    }
    const focused = document.activeElement;
    const views = [...groups].sort(([a], [b]) => byName(a, b)).map(([value, members]) => this._groupView(value, members));
    if (tiles.length === 0) views.push(this._emptyView());
    const wanted = new Set(views);
    for (const child of [...this._boards.children]) if (!wanted.has(child)) child.remove();
    views.forEach((view, index) => {
      if (this._boards.children[index] !== view) this._boards.insertBefore(view, this._boards.children[index] ?? null);
    });
    // An element that is moved loses the focus.
    if (focused !== document.activeElement && this._boards.contains(focused)) focused.focus({ preventScroll: true });
  }

  _groupView(value, members) {
    let group = this._groups.get(value);
    if (group === undefined) {
      const title = h("h3", {});
      const list = h("ul", { class: "tiles" });
      group = { title, list, element: h("div", { class: "group" }, title, list) };
      this._groups.set(value, group);
    }
    const hurting = members.filter((tile) => tile.why).length;
    const word = value === OTHERS ? `no ${this._chosen.group.replace(/^label:/, "")}` : value;
    setShown(group.title, this._chosen.group !== "");
    setText(group.title, `${word} · ${plural(members.length, "board")}${hurting ? ` · ${count(hurting)} hurting` : ""}`);
    setAttribute(group.list, "aria-label", this._chosen.group === "" ? "Boards" : word);
    setChildren(group.list, members.map((tile) => this._tiles.element(tile.board)));
    return group.element;
  }

  _emptyView() {
    const said = this._store.tiles.size === 0
      ? "No board is known yet: add some with `tflotilla board add`."
      : "No board is picked by this filter.";
    return h("p", { class: "soft", text: said });
  }

  _drawCounts(tiles) {
    const counts = new Map();
    let throttled = 0;
    for (const tile of tiles) {
      counts.set(tile.status, (counts.get(tile.status) ?? 0) + 1);
      if (tile.throttled === true) throttled += 1;
    }
    const items = [...counts].map(([status, number]) => ({ status, number, filter: status === "offline" ? "offline" : `status=${status}` }));
    items.sort((a, b) => b.number - a.number || byName(a.status, b.status));
    if (throttled > 0) items.push({ status: "throttled", number: throttled, filter: "throttled=yes" });
    this._updateCounts(items);
  }

  _countView({ filter }) {
    const shape = h("span", { class: "shape", "aria-hidden": "true" });
    const number = h("b", {});
    const word = h("span", {});
    const choose = () => this._choose({ filter: this._chosen.filter === filter ? "" : filter });
    const button = h("button", { type: "button", class: "count", on: { click: choose } },
      h("span", { class: "status" }, shape), number, " ", word);
    const update = (each) => {
      setAttribute(button.firstChild, "data-status", each.status === "throttled" ? "warn" : statusKind(each.status));
      setText(number, count(each.number));
      setText(word, each.status.replaceAll("_", " "));
      setAttribute(button, "aria-pressed", String(this._chosen.filter === filter));
    };
    return { element: h("li", {}, button), update };
  }

  _drawGroupChoice(tiles) {
    const keys = new Set();
    for (const tile of tiles) for (const key of Object.keys(tile.labels ?? {})) keys.add(key);
    const values = [["", "Nothing"], ["status", "Status"], ["bundle", "Bundle"], ["runtime", "Runtime"],
      ...[...keys].sort(byName).map((key) => [`label:${key}`, key])];
    const select = this._group.querySelector("select");
    const known = [...select.options].map((option) => option.value).join("\n");
    if (known !== values.map(([value]) => value).join("\n"))
      select.replaceChildren(...values.map(([value, word]) => h("option", { value, text: word })));
    if (!values.some(([value]) => value === this._chosen.group)) this._chosen.group = "";
    if (select.value !== this._chosen.group) select.value = this._chosen.group;
  }
}

function groupOf(tile, group) {
  if (group === "") return "";
  if (group === "status") return tile.status;
  if (group === "bundle") return tile.model ?? OTHERS;
  if (group === "runtime") return tile.runtime ?? OTHERS;
  const key = group.slice("label:".length);
  const value = tile.labels?.[key];
  return value === undefined ? OTHERS : `${key}=${value}`;
}
