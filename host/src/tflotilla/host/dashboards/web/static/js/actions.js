/**
 * What the page may change, and how it asks: a token first, then the name of the thing, typed by hand.
 *
 * Rules: without a token nothing is ever sent; a token lives in this tab only and is forgotten when it is refused; an
 * action runs once, and what the server answers is said in one line. What it does NOT do: decide what is allowed, the
 * server does.
 */

import { h, setShown } from "./dom.js";

const STORED = "token";

export class Actions {
  /** `say(text, kind)` shows a line; `changed()` hears when a token comes or goes. */
  constructor(store, say, changed) {
    this._store = store;
    this._say = say;
    this._changed = changed;
    this._token = sessionStorage.getItem(STORED);
    if (this._token !== null) void this._check(this._token).then((fine) => fine === false && this.forget());
  }

  /** Whether buttons for changes make sense at all: the server takes tokens. */
  get possible() {
    return this._store.writable;
  }

  get unlocked() {
    return this._token !== null;
  }

  forget() {
    this._token = null;
    sessionStorage.removeItem(STORED);
    this._changed();
  }

  /** Ask for a token, until the server takes it or the person gives up. */
  async unlock() {
    const input = h("input", { type: "password", id: "token-text", autocomplete: "off", spellcheck: "false", required: true });
    const dialog = form({
      title: "Allow changes",
      body: [
        h("p", { text: "This page is read-only. With the token that the dashboard was started with it can also approve, pause and undo rollouts and run benchmarks, until this tab is closed." }),
        h("label", { for: "token-text", text: "Token" }),
        input,
      ],
      does: "Allow changes",
    });
    const fine = await dialog.run(async () => {
      const token = input.value.trim();
      const taken = /^[\x21-\x7e]+$/.test(token) ? await this._check(token) : false;
      if (taken === null) return "The dashboard does not answer.";
      if (!taken) return "The dashboard refuses this token.";
      this._token = token;
      sessionStorage.setItem(STORED, token);
      return null;
    });
    if (fine) this._changed();
    return fine;
  }

  /**
   * Do something that changes the fleet, after the person typed `confirm`. Returns whether it was done.
   * `what`: {title, sentence, confirm, does, path, done, danger, more}; `more` goes into the body.
   */
  async ask(what) {
    if (!this.unlocked && !(await this.unlock())) return false;
    const input = h("input", {
      type: "text", id: "confirm-text", autocomplete: "off", autocapitalize: "off", spellcheck: "false", required: true,
    });
    const dialog = form({
      title: what.title,
      body: [
        h("p", { text: what.sentence }),
        h("label", { for: "confirm-text" }, "Type ", h("code", { text: what.confirm }), " to confirm"),
        input,
      ],
      does: what.does,
      danger: what.danger,
      ready: () => input.value.trim() === what.confirm,
    });
    input.addEventListener("input", dialog.check);
    let said = what.done;
    const done = await dialog.run(async () => {
      let answer;
      try {
        answer = await fetch(what.path, {
          method: "POST",
          headers: { Authorization: `Bearer ${this._token}`, "Content-Type": "application/json" },
          body: JSON.stringify({ confirm: what.confirm, ...what.more }),
        });
      } catch {
        return "The dashboard does not answer; nothing was asked for, as far as this page knows.";
      }
      if (answer.ok) {
        said = (await answer.json().catch(() => ({}))).message ?? what.done;
        return null;
      }
      if (answer.status === 401) {
        this.forget();
        return "The dashboard refuses this token. Close this and give it again.";
      }
      return reason(await answer.text(), answer.status);
    });
    if (done) this._say(said);
    return done;
  }

  /** true, false, or null when nobody answers. */
  async _check(token) {
    try {
      const answer = await fetch("api/token", { headers: { Authorization: `Bearer ${token}` } });
      return answer.status === 204 ? true : answer.status === 401 ? false : null;
    } catch {
      return null;
    }
  }
}

/** The line of an error that the server answered. */
export function reason(text, status) {
  try {
    const said = JSON.parse(text);
    return String(said.error ?? said.message ?? said.detail ?? text);
  } catch {
    return text.length > 0 && text.length < 300 ? text : `The dashboard answered ${status}.`;
  }
}

/** A modal dialog with one form. `run(submit)`: `submit` returns null when done, else what to say. */
export function form({ title, body, does, danger = false, ready = () => true }) {
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const submit = h("button", { type: "submit", class: danger ? "danger" : "primary", text: does });
  const cancel = h("button", { type: "button", text: "Cancel" });
  const heading = h("h2", { id: "dialog-title", text: title });
  const inner = h("form", { method: "dialog" }, heading, body, problem, h("p", { class: "buttons" }, cancel, submit));
  const dialog = h("dialog", { "aria-labelledby": "dialog-title" }, inner);
  const check = () => {
    submit.disabled = !ready();
  };
  const run = (act) =>
    new Promise((resolve) => {
      let done = false;
      const before = document.activeElement;
      cancel.addEventListener("click", () => dialog.close());
      dialog.addEventListener("close", () => {
        dialog.remove();
        before?.focus?.();
        resolve(done);
      });
      inner.addEventListener("submit", async (event) => {
        event.preventDefault();
        if (submit.disabled || !ready()) return;
        submit.disabled = true;
        const said = await act();
        check();
        if (said === null) {
          done = true;
          dialog.close();
          return;
        }
        problem.textContent = said;
        setShown(problem, true);
      });
      check();
      document.body.append(dialog);
      dialog.showModal();
    });
  return { run, check, dialog };
}
