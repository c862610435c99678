/**
 * The live stream of the server (server-sent events), kept open whatever happens to it.
 *
 * Rules: one stream at a time; a stream that broke or has gone quiet is opened anew, ever more slowly; the server's first
 * event holds everything, so nothing has to be caught up. A tab that nobody sees gives its stream back: browsers have six
 * connections to a server for all their tabs together. What it does NOT do: decide whether figures are old.
 */

const SILENT_MS = 15_000;
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10_000;
const HIDDEN_MS = 10_000;

export class Feed {
  /** `store` takes what comes. */
  constructor(store) {
    this._store = store;
    this._board = null;
    this._onBoard = null;
    this._source = null;
    this._wait = FIRST_WAIT_MS;
    this._timer = null;
    this._alive = performance.now();
    this._resting = false;
    this._rest = null;
    setInterval(() => this._check(), 1000);
    document.addEventListener("visibilitychange", () => this._seen(!document.hidden));
    // A page that is kept for "back" would keep its connection, too.
    window.addEventListener("pagehide", () => this._pause());
    window.addEventListener("pageshow", (event) => event.persisted && this._seen(true));
  }

  _seen(visible) {
    clearTimeout(this._rest);
    if (!visible) this._rest = setTimeout(() => this._pause(), HIDDEN_MS);
    else if (this._resting) this._open();
  }

  _pause() {
    clearTimeout(this._timer);
    this._timer = null;
    this._source?.close();
    this._source = null;
    this._resting = true;
  }

  /** Listen to the fleet, and to one board closely: `onBoard(event)` gets what only it says. */
  follow(board = null, onBoard = null) {
    this._onBoard = onBoard;
    if (this._source !== null && board === this._board) return;
    this._board = board;
    this._open();
  }

  _open() {
    clearTimeout(this._timer);
    this._timer = null;
    this._resting = false;
    this._source?.close();
    const early = this._early();
    const query = this._board === null ? "" : `?board=${encodeURIComponent(this._board)}`;
    const source = early?.source ?? new EventSource(`api/stream${query}`);
    this._source = source;
    this._alive = performance.now();
    const takes = {};
    const hear = (event) => {
      if (source !== this._source) return;
      this._alive = performance.now();
      this._wait = FIRST_WAIT_MS;
      takes[event.type](JSON.parse(event.data));
    };
    const on = (name, take) => {
      takes[name] = take;
      source.addEventListener(name, hear);
    };
    on("fleet", (data) => this._store.takeFleet(data));
    on("tiles", (data) => this._store.takeTiles(data));
    on("rollouts", (data) => this._store.takeRollouts(data));
    on("source", (data) => this._store.takeSource(data));
    on("board", (data) => {
      this._store.heard();
      this._onBoard?.(data);
    });
    source.addEventListener("error", () => {
      if (source === this._source) this._again();
    });
    const heard = early?.heard ?? [];
    if (early !== null) early.heard = null;
    heard.forEach(hear);
  }

  /** The stream that early.js opened, if it is the one that is wanted now and still there; it is taken over once. */
  _early() {
    const early = window.early ?? null;
    window.early = null;
    if (early === null) return null;
    if (early.board === this._board && early.source.readyState !== EventSource.CLOSED) return early;
    early.source.close();
    early.heard = null;
    return null;
  }

  _again() {
    // The browser would try again by itself, but not after every kind of error, and always at the same pace.
    this._source?.close();
    if (this._timer !== null) return;
    this._timer = setTimeout(() => this._open(), this._wait);
    this._wait = Math.min(this._wait * 2, LONGEST_WAIT_MS);
  }

  _check() {
    // Heartbeats come every two seconds: a stream without any is a connection whose other end is gone.
    if (!this._resting && this._timer === null && performance.now() - this._alive > SILENT_MS) this._again();
  }
}
