/**
 * One rollout: its waves, what its gates saw, every board, who did what; and what can be done about it.
 *
 * Rules: the waves come with the stream, the rest is fetched when they change; verdicts and figures are the journal's own
 * words. Boards that need somebody's eye stand first.
 */

import { h, keyed, scroller, setShown, setText, statusMark } from "../dom.js";
import * as format from "../format.js";
import { moveFocus } from "../keys.js";
import { poll } from "../polling.js";
import { boardAddress } from "../router.js";
import { deedButtons, over, waves } from "../rollouts.js";

const EVERY_MS = 2000;
const EVERY_WHEN_OVER_MS = 30000;
const MOST_ROWS = 200;

export function mount(root, app, { parameter }) {
  const [mark, buttons, strips] = [statusMark(), deedButtons(app), waves()];
  const title = h("h1", { text: parameter });
  const [since, reason] = [h("span", { class: "soft" }), h("p", { class: "reason", role: "status" })];
  const problem = h("p", { class: "problem", role: "status" });
  const [facts, gates, boards, leftOut, audit] = [factList(), gateTable(app), boardTable(app), leftOutTable(), auditTable(app)];
  const card = (name, view, className = "whole") =>
    h("section", { class: `card ${className}`, "aria-label": name }, h("h2", { tabindex: "-1", text: name }), view.element);
  const rest = h("div", { class: "cards", hidden: true },
    card("Waves", strips), card("Plan", facts, "plan"), card("Gates", gates, "gates"), card("Boards", boards), card("Not in it", leftOut), card("Who did what", audit));
  root.append(
    h("p", { class: "crumbs" }, h("a", { href: "#/rollouts", text: "Rollouts" }), " / ", h("span", { text: parameter })),
    h("div", { class: "board-head" }, title, mark.element, since, buttons.element), reason, problem, rest);

  let shown = "";
  const drawRow = (row) => {
    setText(title, row.title);
    mark.update(row.status);
    setText(since, row.started ? `began ${format.ago(row.started, app.store.now())}` : "");
    setText(reason, row.reason ?? "");
    setShown(reason, Boolean(row.reason));
    buttons.update(row);
    strips.update(row.waves);
  };
  const drawDetail = (detail) => {
    setShown(rest, true);
    drawRow(detail);
    facts.update(detail);
    gates.update(detail);
    boards.update(detail.boards);
    leftOut.update(detail.left_out);
    setShown(leftOut.element.parentElement, detail.left_out.length > 0);
    audit.update(detail.audit);
  };
  const row = () => app.store.rollouts.find((each) => each.id === parameter);
  const polling = poll(app, () => `api/rollouts/${encodeURIComponent(parameter)}`,
    row() !== undefined && over(row()) ? EVERY_WHEN_OVER_MS : EVERY_MS, drawDetail, (text) => setText(problem, text));
  app.feed.follow();
  const leave = app.store.subscribe((kinds) => {
    const newest = row();
    if (newest === undefined) return;
    if (kinds.has("rollouts") || kinds.has("source") || kinds.has("tick")) drawRow(newest);
    const now = JSON.stringify(newest);
    if (now !== shown) polling.now();
    shown = now;
  });
  if (row() !== undefined) drawRow(row());
  return {
    title: parameter,
    unmount: () => {
      leave();
      polling.stop();
    },
    move: (step) => void moveFocus(root, "h2[tabindex]", step),
    escape: () => {
      location.hash = "#/rollouts";
      return true;
    },
  };
}

function factList() {
  const element = h("dl", { class: "facts" });
  const update = (detail) => {
    const { policy } = detail;
    const onFailure = policy.on_failure === "rollback" ? "stop, and roll back what was done" : "stop";
    const found = [
      ["Bundle", `${detail.title}, ${format.shortDigest(detail.digest)}`], ["Boards", detail.selector], ["Started by", detail.by],
      ["Conducted by", detail.conductor ?? "nobody now"], ["Waves", detail.waves.map((wave) => `${wave.size}${wave.approval ? "!" : ""}`).join(", ")],
      ["Soak", `${policy.soak_s} s after ${policy.baseline_s} s of baseline`],
      ["Goes on from", format.percent(policy.success)], ["Stops above", `${format.percent(policy.error)} failed: ${onFailure}`],
      ["Shadow", policy.shadow ? `${format.count(policy.shadow)} inputs` : "none"],
    ];
    element.replaceChildren(...found.map(([name, value]) => h("div", {}, h("dt", { text: name }), h("dd", { text: value }))));
  };
  return { element, update };
}

/** A table whose rows are made anew when its items change: {element, update(items)}. */
function table(caption, heads, row, none) {
  const body = h("tbody");
  const frame = scroller(caption, h("table", {}, h("caption", { class: "unseen", text: caption }),
    h("thead", {}, h("tr", {}, heads.map((word) => h("th", { scope: "col", text: word })))), body));
  const words = h("p", { class: "soft" });
  let drawn = null;
  const update = (items) => {
    const now = JSON.stringify(items);
    if (now === drawn) return;
    drawn = now;
    setShown(frame, items.length > 0);
    setText(words, items.length === 0 ? none : items.length > MOST_ROWS ? `and ${format.count(items.length - MOST_ROWS)} more` : "");
    body.replaceChildren(...items.slice(0, MOST_ROWS).map(row));
  };
  return { element: h("div", {}, frame, words), update };
}

function passed(ok) {
  const mark = statusMark(ok ? "passed" : "failed");
  return mark.element;
}

function gateTable() {
  const limits = h("p", { class: "soft" });
  const results = table("Gates", ["Wave", "Gate", "Board", "Figure", "Verdict"], (gate) => h("tr", {},
    h("td", { text: gate.wave === null ? format.UNKNOWN : String(gate.wave) }), h("th", { scope: "row", text: gate.gate }),
    h("td", {}, h("a", { href: boardAddress(gate.board), text: gate.board })), h("td", { class: "sentence", text: gate.figure }), h("td", {}, passed(gate.ok))),
  "No wave was judged yet.");
  const verdicts = h("ul", { class: "history" });
  const update = (detail) => {
    const set = Object.entries(detail.policy.gates).filter(([, limit]) => limit !== null);
    setText(limits, set.length === 0 ? "No gate is set: the boards' own confirm window alone decides." : `Limits: ${set.map(([name, limit]) => `${name.replaceAll("_", " ")} ${limit}`).join(", ")}.`);
    keyedVerdicts(detail.verdicts.map((verdict, index) => ({ ...verdict, index })));
    // What broke its limit first, then the newest.
    results.update([...detail.gates].reverse().sort((a, b) => a.ok - b.ok));
  };
  const keyedVerdicts = keyed(verdicts, (verdict) => verdict.index, (verdict) => ({
    element: h("li", {}, passed(verdict.ok), h("span", { class: "words", text: verdict.reason })), update: () => {},
  }));
  return { element: h("div", {}, verdicts, limits, results.element), update };
}

function boardTable(app) {
  return table("Boards", ["Board", "Wave", "Phase", "Attempts", "Sent", "Next try", "Why"], (board) => h("tr", {},
    h("th", { scope: "row" }, h("a", { href: boardAddress(board.board), text: board.board })), h("td", { text: String(board.wave) }),
    h("td", {}, statusMark(board.phase).element), h("td", { text: format.count(board.attempts) }),
    h("td", { text: board.bytes_sent ? format.bytes(board.bytes_sent) : format.UNKNOWN }),
    h("td", { text: format.clock(board.again_at, app.store.now()) }), h("td", { class: "sentence", text: board.reason ?? "" })),
  "No board is in it.");
}

function leftOutTable() {
  return table("Boards that are not in it", ["Board", "State", "Why"], (board) => h("tr", {},
    h("th", { scope: "row" }, h("a", { href: boardAddress(board.board), text: board.board })),
    h("td", { text: board.disposition.replaceAll("_", " ") }), h("td", { text: board.reason ?? "" })), "");
}

function auditTable(app) {
  return table("Who did what", ["When", "Who", "What", "Details"], (entry) => h("tr", {},
    h("td", { text: format.clock(entry.time, app.store.now()) }), h("td", { text: entry.by }), h("th", { scope: "row", text: entry.action }),
    h("td", { text: Object.entries(entry.detail).map(([key, value]) => `${key}: ${value}`).join(", ") })),
  "The audit log has nothing of it.");
}
