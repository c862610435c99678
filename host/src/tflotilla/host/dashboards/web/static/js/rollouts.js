/**
 * Rollouts as strips: each wave a bar as wide as its boards are many, with what it says; and the buttons to steer them.
 *
 * Rules: what waits for a person is said in words; buttons are shown where the server takes tokens, and ask first.
 */

import { h, keyed, setAttribute, setShown, setText, statusMark } from "./dom.js";
import { ago, count, plural } from "./format.js";
import { rolloutAddress } from "./router.js";

const OVER = new Set(["halted", "rolled_back", "aborted", "succeeded"]);

const DEEDS = {
  approve: { does: "Approve", title: "Approve the next wave?", done: "Approved.", sentence: (row) => `Wave ${waiting(row)?.index ?? ""} of ${row.title} begins on ${plural(waiting(row)?.boards ?? 0, "board")}.` },
  pause: { does: "Pause", title: "Pause this rollout?", done: "Paused.", sentence: (row) => `No further board gets ${row.title} until it is resumed; boards that have it keep it.` },
  resume: { does: "Resume", title: "Resume this rollout?", done: "Resumed.", sentence: (row) => `${row.title} goes on where it was paused.` },
  abort: { does: "Abort", title: "Abort this rollout?", done: "Aborted.", danger: true, sentence: (row) => `No further board gets ${row.title}; boards that have it keep it. This can't be taken back.` },
  rollback: { does: "Roll back", title: "Roll back?", done: "The rollback was asked for.", danger: true, sentence: (row) => `Every board that got ${row.title} goes back to the bundle it had before.` },
};

/** The wave that waits for a person's word, if one does. */
export function waiting(row) {
  return row.waves.find((wave) => wave.state === "approval") ?? null;
}

/** Which deeds make sense for a rollout now. */
export function deeds(row) {
  const found = [];
  if (waiting(row) && !OVER.has(row.status)) found.push("approve");
  if (row.status === "running") found.push("pause");
  if (row.status === "paused") found.push("resume");
  if (!OVER.has(row.status) && row.status !== "rolling_back") found.push("abort");
  if (row.status !== "rolled_back" && row.status !== "rolling_back") found.push("rollback");
  return found;
}

/** Ask the person, then the server. Returns whether it was done. */
export function doDeed(app, deed, row) {
  const { does, title, done, sentence, danger } = DEEDS[deed];
  return app.actions.ask({
    title, does, done, danger, sentence: sentence(row), confirm: row.id,
    path: `api/rollouts/${encodeURIComponent(row.id)}/${deed}`,
    // The wave that the person saw, not whichever waits when the word arrives.
    more: deed === "approve" ? { wave: waiting(row)?.index } : {},
  });
}

/** Buttons of a rollout: {element, update(row)}. `only`: which deeds at most. */
export function deedButtons(app, only = Object.keys(DEEDS)) {
  let newest = null;
  const buttons = Object.fromEntries(
    only.map((deed) => [
      deed,
      h("button", {
        type: "button", class: DEEDS[deed].danger ? "danger" : deed === "approve" ? "primary" : null,
        text: DEEDS[deed].does, "data-deed": deed, on: { click: () => void doDeed(app, deed, newest) },
      }),
    ]),
  );
  const element = h("span", { class: "deeds" }, Object.values(buttons));
  const update = (row) => {
    newest = row;
    const fitting = deeds(row);
    for (const [deed, button] of Object.entries(buttons)) {
      setShown(button, app.actions.possible && fitting.includes(deed));
      setAttribute(button, "aria-label", `${DEEDS[deed].does} rollout ${row.id}`);
    }
  };
  return { element, update };
}

/** One wave of a strip: {element, update(wave)}. */
function waveView() {
  const parts = Object.fromEntries(["serving", "failed", "pending"].map((part) => [part, h("span", { class: `part ${part}` })]));
  const bar = h("span", { class: "bar", "aria-hidden": "true" }, Object.values(parts));
  const name = h("b", {});
  const mark = statusMark();
  const figures = h("span", { class: "figures" });
  const verdict = h("span", { class: "verdict soft" });
  const element = h("li", { class: "wave" }, bar, h("span", { class: "line" }, name, mark.element, figures), verdict);
  const update = (wave) => {
    // Widths follow the boards, yet a wave of one canary beside one of a thousand stays to be seen.
    element.style.flexGrow = String(Math.max(1, Math.sqrt(wave.boards)));
    for (const [part, span] of Object.entries(parts)) span.style.flexGrow = String(wave[part] ?? 0);
    setText(name, `Wave ${wave.index}`);
    mark.update(wave.state === "approval" ? "approval" : wave.state ?? "unknown");
    const failed = wave.failed ? `, ${count(wave.failed)} failed` : "";
    setText(figures, `${count(wave.serving)} of ${count(wave.boards)} serving${failed}`);
    setText(verdict, wave.verdict ?? "");
    setShown(verdict, Boolean(wave.verdict));
  };
  return { element, update };
}

/** Waves side by side: {element, update(waves)}; the same for strips and for a rollout's own page. */
export function waves() {
  const element = h("ol", { class: "waves" });
  const update = keyed(element, (wave) => wave.index, waveView);
  return { element, update };
}

/** One rollout as a strip: {element, update(row)}; `heading` is the level that fits the page. */
export function strip(app, row, heading = "h3") {
  const mark = statusMark();
  const link = h("a", { href: rolloutAddress(row.id), text: row.title });
  const id = h("span", { class: "soft id", text: row.id });
  const since = h("span", { class: "soft" });
  const reason = h("p", { class: "reason" });
  const buttons = deedButtons(app, ["approve", "pause", "resume"]);
  const each = waves();
  const head = h("div", { class: "head" }, h(heading, { class: "title" }, link), mark.element, id, since, buttons.element);
  const element = h("article", { class: "rollout", "data-id": row.id }, head, each.element, reason);
  const update = (now) => {
    mark.update(now.status);
    setText(link, now.title);
    setText(since, now.started ? `began ${ago(now.started, app.store.now())}` : "");
    setText(reason, now.reason ?? "");
    setShown(reason, Boolean(now.reason));
    buttons.update(now);
    each.update(now.waves);
  };
  return { element, update };
}

/** Whether nothing follows by itself. */
export const over = (row) => OVER.has(row.status);
