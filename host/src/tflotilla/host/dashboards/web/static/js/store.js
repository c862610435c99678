/**
 * What the page knows of the fleet, and who wants to hear of changes.
 *
 * Rules: changes are gathered and told once per frame, so a burst costs one drawing; the server's clock counts, not the
 * browser's. What it does NOT do: touch the network or the page.
 */

/** Nothing from the server for this long: what is shown may be old, and the page says so. */
export const STALE_AFTER_MS = 5000;

export class Store {
  constructor() {
    this.name = "";
    this.tiles = new Map();
    this.rollouts = [];
    /** Why rollouts can't be read, if they can't. */
    this.rolloutsProblem = null;
    this.garbage = 0;
    this.listeningSince = null;
    this.writable = false;
    /** Whether the server hears the broker; null before it said. */
    this.connected = null;
    this.reason = null;
    this.loaded = false;
    /** How often the server told everything: each time may end a gap. */
    this.opened = 0;
    this.heardAt = null;
    this._offset = 0;
    this._listeners = new Set();
    this._changed = new Set();
    this._kinds = new Set();
    this._scheduled = false;
  }

  /** The server's time, Unix seconds. */
  now() {
    return Date.now() / 1000 + this._offset;
  }

  /** For how many seconds the server has been silent, null while it is not. */
  silentFor() {
    const silent = this.heardAt === null ? 0 : performance.now() - this.heardAt;
    return silent > STALE_AFTER_MS ? silent / 1000 : null;
  }

  /** Whether figures are what the boards say now, as far as this page and its server can tell. */
  fresh() {
    return this.silentFor() === null && this.connected !== false;
  }

  /** Hear of changes: `listener(kinds, boards)`, both sets; kinds are fleet, tiles, rollouts, source, tick. */
  subscribe(listener) {
    this._listeners.add(listener);
    return () => this._listeners.delete(listener);
  }

  heard(now) {
    this.heardAt = performance.now();
    if (typeof now === "number") this._offset = now - Date.now() / 1000;
  }

  takeFleet(whole) {
    this.heard(whole.now);
    const names = new Set(whole.tiles.map((tile) => tile.board));
    for (const name of this.tiles.keys()) if (!names.has(name)) this.tiles.delete(name);
    this._put(whole.tiles);
    this.name = whole.fleet;
    this.rollouts = whole.rollouts ?? [];
    this.rolloutsProblem = whole.rollouts_problem ?? null;
    this.garbage = whole.garbage ?? 0;
    this.listeningSince = whole.listening_since ?? null;
    this.writable = Boolean(whole.writable);
    this.connected = whole.connected;
    this.reason = whole.reason ?? null;
    this.loaded = true;
    this.opened += 1;
    this.tell("fleet");
    this.tell("rollouts");
    this.tell("source");
  }

  takeTiles(part) {
    this.heard(part.now);
    this._put(part.tiles ?? []);
    this.garbage = part.garbage ?? this.garbage;
    const gone = part.gone ?? [];
    for (const name of gone) this.tiles.delete(name);
    if (gone.length > 0) this.tell("fleet");
    if (part.tiles?.length > 0) this.tell("tiles");
  }

  takeRollouts(part) {
    this.heard();
    this.rollouts = part.rollouts ?? [];
    this.rolloutsProblem = part.problem ?? null;
    this.tell("rollouts");
  }

  takeSource(part) {
    this.heard();
    this.connected = part.connected;
    this.reason = part.reason ?? null;
    this.tell("source");
  }

  /** Have listeners called in the next frame. */
  tell(kind) {
    this._kinds.add(kind);
    if (this._scheduled) return;
    this._scheduled = true;
    requestAnimationFrame(() => {
      this._scheduled = false;
      const [kinds, changed] = [this._kinds, this._changed];
      [this._kinds, this._changed] = [new Set(), new Set()];
      for (const listener of [...this._listeners]) listener(kinds, changed);
    });
  }

  _put(tiles) {
    for (const tile of tiles) {
      if (!this.tiles.has(tile.board)) this.tell("fleet");
      this.tiles.set(tile.board, tile);
      this._changed.add(tile.board);
    }
  }
}
