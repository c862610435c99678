/**
 * Models: versions side by side over the fleet, by what they cost, how sure they are, and how far they drifted.
 *
 * Rules: latencies are of all boards together, from sketches that were added up; a drift is called one only beyond what
 * chance makes; bars stand beside their figures and share one scale, so that versions can be compared by eye.
 */

import { bar, confidence, labelMix } from "../bars.js";
import { h, keyed, scroller, setAttribute, setShown, setText } from "../dom.js";
import * as format from "../format.js";
import { moveFocus } from "../keys.js";
import { poll } from "../polling.js";
import { boardAddress, modelAddress } from "../router.js";

const EVERY_MS = 2000;
const STAGES = ["total", "decode", "preprocess", "invoke", "postprocess"];
/** The limit that rollouts' gates have unless a plan says otherwise. */
const DRIFT_LIMIT = 0.25;
const MOST_BOARDS = 12;

export function mount(root, app, { parameter }) {
  const problem = h("p", { class: "problem", role: "status" });
  const none = h("p", { class: "soft", text: "No board has reported a model yet." });
  const place = h("div", {});
  root.append(
    parameter === null ? "" : h("p", { class: "crumbs" }, h("a", { href: "#/models", text: "Models" }), " / ", h("span", { text: parameter })),
    h("h1", { text: parameter ?? "Models" }), problem, none, place);
  const draw = keyed(place, (model) => model.name, (model) => (parameter === null ? summary(model) : sideBySide(model)));
  const polling = poll(app, () => "api/models", EVERY_MS, ({ models }) => {
    const wanted = parameter === null ? models : models.filter((model) => model.name === parameter);
    setText(none, parameter === null ? "No board has reported a model yet." : `No board has reported ${parameter} since this dashboard listens.`);
    setShown(none, wanted.length === 0);
    draw(wanted);
  }, (text) => setText(problem, text));
  app.feed.follow();
  return {
    title: parameter ?? "Models",
    unmount: () => polling.stop(),
    move: (step) => void moveFocus(place, parameter === null ? ".model-name" : "h2[tabindex]", step),
    escape: () => {
      location.hash = parameter === null ? "#/" : "#/models";
      return true;
    },
  };
}

/** What a version is called: a board may serve one whose card was never heard. */
const versionName = (version) => version.version ?? format.shortDigest(version.digest);

function summary(model) {
  const table = versions(`Versions of ${model.name}`);
  const element = h("section", { class: "card whole", "aria-label": model.name },
    h("h2", {}, h("a", { class: "model-name", href: modelAddress(model.name), text: model.name })), table.element);
  return { element, update: (now) => table.update(now.versions) };
}

function sideBySide(model) {
  const table = versions(`Versions of ${model.name}`);
  const latency = latencies();
  const doubts = columns("confidence", (version) => {
    const view = confidence(`Confidence of ${versionName(version)}`);
    return { element: view.element, update: (now) => view.update(now.scores, now.reference?.scores ?? null) };
  });
  const mixes = columns("mix", (version) => {
    const view = labelMix(`Labels of ${versionName(version)}`);
    return { element: view.element, update: (now) => view.update(now.labels, now.reference?.labels ?? null) };
  });
  const boards = columns("boards", boardList);
  const part = (title, view, words = null) =>
    h("section", { class: "card whole", "aria-label": title }, h("h2", { tabindex: "-1", text: title }), words && h("p", { class: "soft", text: words }), view.element);
  const element = h("div", { class: "cards" },
    part("Versions", table),
    part("Latency over all boards", latency),
    part("Confidence", doubts, "How sure the winners were; the line is what the bundle answered where it was made."),
    part("Label mix", mixes, "The mark in a bar is the share where the bundle was made."),
    part("Boards", boards));
  const update = (now) => [table, latency, doubts, mixes, boards].forEach((view) => view.update(now.versions));
  return { element, update };
}

const COLUMNS = [
  ["Release", (version) => format.count(version.release)],
  ["Scheme", (version) => version.scheme ?? format.UNKNOWN],
  ["Size", (version) => format.bytes(version.size_bytes)],
  ["Boards", (version) => format.count(version.boards.length)],
  ["Answers", (version) => format.count(version.count)],
  ["Errors", (version) => format.count(version.errors)],
  ["Accuracy", (version) => format.percent(version.accuracy, 1)],
  ["In float", (version) => format.percent(version.float_accuracy, 1)],
  ["p50", (version) => format.latency(version.stages.total?.p50_ms)],
  ["p99", (version) => format.latency(version.stages.total?.p99_ms)],
  ["Unsure", (version) => format.percent(version.low_confidence_share)],
  ["Label drift", (version) => drift(version.drift.labels)],
  ["Score drift", (version) => drift(version.drift.confidence)],
];

/** A table of versions, the newest first: {element, update(versions)}. */
function versions(caption) {
  const body = h("tbody");
  const element = scroller(caption, h("table", { class: "versions" },
    h("caption", { class: "unseen", text: caption }),
    h("thead", {}, h("tr", {}, h("th", { scope: "col", text: "Version" }), COLUMNS.map(([word]) => h("th", { scope: "col", class: "figure", text: word })))),
    body));
  const update = keyed(body, (version) => version.digest, (version) => {
    const name = h("th", { scope: "row", title: version.digest });
    const cells = COLUMNS.map(() => h("td", { class: "figure" }));
    return {
      element: h("tr", {}, name, cells),
      update: (now) => {
        setText(name, versionName(now));
        COLUMNS.forEach(([word, of], index) => {
          setText(cells[index], of(now));
          const bad = (word === "Errors" && now.errors > 0) || (word === "Label drift" && drifted(now.drift.labels)) ||
            (word === "Score drift" && drifted(now.drift.confidence));
          setAttribute(cells[index], "data-bad", bad);
        });
      },
    };
  });
  return { element, update };
}

const drifted = (index) => index !== null && index.psi > Math.max(DRIFT_LIMIT, index.chance);

function drift(index) {
  if (index === null || index.psi === null) return format.UNKNOWN;
  return `PSI ${format.threeDigits(index.psi)}${drifted(index) ? " drifted" : ""}`;
}

/** Percentiles of one stage, a row per version, on one scale: {element, update(versions)}. */
function latencies() {
  let [stage, newest] = ["total", []];
  const choices = STAGES.map((name) => {
    const input = h("input", { type: "radio", name: "stage-of-model", value: name, on: { change: () => { stage = name; update(newest); } } });
    input.checked = name === stage;
    return h("label", {}, input, h("span", { text: name }));
  });
  const body = h("tbody");
  const table = scroller("Latency of each version", h("table", { class: "mix" },
    h("caption", { class: "unseen", text: "Latency of each version" }),
    h("thead", {}, h("tr", {}, ["Version", "", "p50", "p90", "p99", "Inferences"].map((word, index) =>
      h("th", { scope: "col", class: index > 1 ? "figure" : null }, index === 1 ? h("span", { class: "unseen", text: "Bar to p50, mark at p99" }) : word)))),
    body));
  const rows = keyed(body, (row) => row.digest, () => {
    const [meter, name] = [bar(), h("th", { scope: "row" })];
    const cells = ["p50", "p90", "p99", "count"].map(() => h("td", { class: "figure" }));
    return {
      element: h("tr", {}, name, h("td", { class: "bar-cell" }, meter.element), cells),
      update: (row) => {
        setText(name, row.name);
        meter.update(row.p50_ms === null ? 0 : row.p50_ms / row.top, row.p99_ms === null ? null : row.p99_ms / row.top);
        [row.p50_ms, row.p90_ms, row.p99_ms].forEach((ms, index) => setText(cells[index], format.latency(ms)));
        setText(cells[3], format.count(row.count));
      },
    };
  });
  function update(now) {
    newest = now;
    const found = now.map((version) => ({
      digest: version.digest, name: versionName(version), p50_ms: null, p90_ms: null, p99_ms: null, count: 0, ...version.stages[stage],
    }));
    const top = Math.max(1e-9, ...found.map((row) => row.p99_ms ?? 0));
    rows(found.map((row) => ({ ...row, top })));
  }
  const element = h("div", {}, h("fieldset", { class: "segments" }, h("legend", { class: "unseen", text: "Stage" }), choices), table,
    h("p", { class: "soft", text: "The bar ends at p50, the mark is p99; both are of all boards together since this dashboard listens." }));
  return { element, update };
}

/** One column per version: {element, update(versions)}. */
function columns(className, make) {
  const element = h("div", { class: `side-by-side ${className}` });
  const update = keyed(element, (version) => version.digest, (version) => {
    const view = make(version);
    const name = h("h3", {});
    return {
      element: h("div", {}, name, view.element),
      update: (now) => {
        setText(name, `${versionName(now)} · ${format.plural(now.boards.length, "board")}`);
        view.update(now);
      },
    };
  });
  return { element, update };
}

function boardList() {
  const list = h("ul", { class: "names" });
  const rest = h("p", { class: "soft" });
  const names = keyed(list, (board) => board, (board) => ({ element: h("li", {}, h("a", { href: boardAddress(board), text: board })), update: () => {} }));
  const update = (now) => {
    names(now.boards.slice(0, MOST_BOARDS));
    const more = now.boards.length - MOST_BOARDS;
    setText(rest, now.boards.length === 0 ? "It serves nowhere now." : more > 0 ? `and ${format.count(more)} more` : "");
  };
  return { element: h("div", {}, list, rest), update };
}
