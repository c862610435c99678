/**
 * What stands around every page: whether figures are live, the colours, the token, help, the spoken summary.
 *
 * Rules: the page never shows old figures as new: after five seconds without a word of the server, or while the server
 * does not hear the broker, everything is greyed and says since when. The summary is spoken at most every ten seconds.
 */

import { form } from "./actions.js";
import { h, setAttribute, setShown, setText } from "./dom.js";
import { clock, count, duration, plural } from "./format.js";
import { KEYS, setSingleKeys, singleKeys } from "./keys.js";

const SPOKEN_EVERY_MS = 10_000;
const TOAST_MS = 8000;
const THEMES = { auto: ["Auto", "as the system"], light: ["Light", "light"], dark: ["Dark", "dark"] };

const byId = (id) => document.getElementById(id);

export class Shell {
  constructor(store) {
    this._store = store;
    this._themeListeners = new Set();
    this._spoken = { text: "", at: -SPOKEN_EVERY_MS };
    this._toastTimer = null;
    byId("help").addEventListener("click", () => this.help());
    byId("theme").addEventListener("click", () => this.nextTheme());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this._tellTheme());
    this._showTheme();
    store.subscribe(() => this._draw());
    setInterval(() => store.tell("tick"), 1000);
  }

  /** Show the state of the token, and ask for one when the button is pressed. */
  bindToken(actions) {
    this._actions = actions;
    byId("token").addEventListener("click", () => (actions.unlocked ? actions.forget() : void actions.unlock()));
  }

  /** Say one line for some seconds. */
  say(text) {
    const toast = byId("toast");
    toast.textContent = text;
    clearTimeout(this._toastTimer);
    this._toastTimer = setTimeout(() => (toast.textContent = ""), TOAST_MS);
  }

  /** Hear when colours change: plots are drawn, not styled. */
  onTheme(listener) {
    this._themeListeners.add(listener);
    return () => this._themeListeners.delete(listener);
  }

  nextTheme() {
    const names = Object.keys(THEMES);
    const next = names[(names.indexOf(this._theme()) + 1) % names.length];
    if (next === "auto") {
      localStorage.removeItem("theme");
      delete document.documentElement.dataset.theme;
    } else {
      localStorage.setItem("theme", next);
      document.documentElement.dataset.theme = next;
    }
    this._showTheme();
    this._tellTheme();
  }

  help() {
    const keys = h("input", { type: "checkbox", id: "single-keys", on: { change: () => setSingleKeys(keys.checked) } });
    keys.checked = singleKeys();
    const rows = KEYS.map(([key, does]) => [h("dt", {}, h("kbd", { text: key })), h("dd", { text: does })]);
    const { run } = form({
      title: "Keys and filter",
      does: "Done",
      body: [
        h("dl", { class: "keys" }, rows),
        h("p", {}, keys, h("label", { for: "single-keys", text: " Single keys do something" })),
        h("p", {}, "The filter takes the words of selectors: ", h("code", { text: "pi-*,room=kitchen,!pi-7" }), ", ",
          h("code", { text: "offline or status=failing" }), ", ", h("code", { text: "bundle=digits* and not gen=4" }), "."),
        h("p", { class: "soft", text: "A dash means: not known. Grey figures are old, and say how old." }),
      ],
    });
    void run(async () => null);
  }

  _theme() {
    return document.documentElement.dataset.theme ?? "auto";
  }

  _showTheme() {
    const [word, said] = THEMES[this._theme()];
    setText(byId("theme"), word);
    setAttribute(byId("theme"), "aria-label", `${word}: colours ${said}`);
  }

  _tellTheme() {
    for (const listener of this._themeListeners) listener();
  }

  _draw() {
    const store = this._store;
    setText(byId("fleet-name"), store.name);
    this._drawLink(store);
    const token = byId("token");
    setShown(token, store.writable && this._actions !== undefined);
    setText(token, this._actions?.unlocked ? "Changes allowed" : "Read-only");
    setAttribute(token, "aria-label", this._actions?.unlocked ? "Changes are allowed; lock" : "Read-only; allow changes with a token");
    this._speak(store);
  }

  _drawLink(store) {
    const silent = store.silentFor();
    const at = clock(store.now() - (silent ?? 0), store.now());
    let [state, word, banner] = ["live", "live", null];
    if (!store.loaded) {
      [state, word] = ["waiting", "connecting"];
      if (silent !== null) [state, word, banner] = ["broken", "no answer", "The dashboard does not answer."];
    } else if (silent !== null) {
      [state, word] = ["broken", `stale ${duration(silent)}`];
      banner = `No news from the dashboard for ${duration(silent)}: figures are as of ${at}.`;
    } else if (store.connected === false) {
      [state, word] = ["broken", "no broker"];
      banner = `The dashboard does not hear the broker${store.reason ? ` (${store.reason})` : ""}: figures are old until it does.`;
    }
    setAttribute(byId("link"), "data-state", state);
    setText(byId("link-word"), word);
    setShown(byId("stale"), banner !== null);
    setText(byId("stale"), banner ?? "");
    document.body.classList.toggle("is-stale", store.loaded && state === "broken");
  }

  _speak(store) {
    if (!store.loaded) return;
    const counts = new Map();
    for (const tile of store.tiles.values()) counts.set(tile.status, (counts.get(tile.status) ?? 0) + 1);
    const said = [...counts].sort().map(([status, number]) => `${count(number)} ${status.replaceAll("_", " ")}`).join(", ");
    const text = `${plural(store.tiles.size, "board")}: ${said || "none"}.${store.fresh() ? "" : " Figures are old."}`;
    const now = performance.now();
    if (text === this._spoken.text || now - this._spoken.at < SPOKEN_EVERY_MS) return;
    this._spoken = { text, at: now };
    setText(byId("summary"), text);
  }
}
