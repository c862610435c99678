/**
 * What moves on a board's page: curves, the stream of answers, the mixes.
 *
 * Rules: at most 600 windows and 50 answers are kept; a point that is not newer than the last is a repetition; thumbnails
 * are drawn onto a canvas, so nothing a board sends is ever loaded as a document.
 */

import { bar, confidence, labelMix } from "../bars.js";
import { h, keyed, scroller, setShown, setText } from "../dom.js";
import * as format from "../format.js";
import { plot } from "../plots.js";

const STAGES = ["decode", "preprocess", "invoke", "postprocess", "total"];
const KEPT_POINTS = 600;
const KEPT_ANSWERS = 50;
const SHOWN_ANSWERS = 12;

function cut(points) {
  if (points.length > KEPT_POINTS) points.splice(0, points.length - KEPT_POINTS);
}

/** Curves of p50 or p99 by stage, with the sums' table that is also their legend. */
export function latencies(app) {
  const element = h("div", {});
  let points = [];
  let percentile = "p99_ms";
  const drawn = plot(element, app, {
    label: "Latency by stage", height: 240, scales: { ms: { format: format.latency } },
    curves: STAGES.map((stage) => ({ name: stage, class: `stage-${stage}`, format: format.latency, scale: "ms" })),
  });
  const draw = () =>
    drawn.set(points.map((point) => point.time), STAGES.map((stage) => points.map((point) => point[percentile]?.[stage] ?? null)));
  const choice = h("fieldset", { class: "segments" }, h("legend", { class: "unseen", text: "Percentile of each window" }),
    ["p50_ms", "p99_ms"].map((value) => {
      const input = h("input", { type: "radio", name: "percentile", value, checked: value === percentile, on: { change: () => { percentile = value; draw(); } } });
      return h("label", {}, input, h("span", { text: value.slice(0, 3) }));
    }));
  element.prepend(choice);
  const body = h("tbody");
  const rows = keyed(body, (row) => row.stage, ({ stage }) => {
    const index = STAGES.indexOf(stage);
    const box = h("input", { type: "checkbox", checked: true, "aria-label": `Draw ${stage}`, on: { change: () => drawn.show(index, box.checked) } });
    const cells = ["count", "p50_ms", "p90_ms", "p99_ms"].map(() => h("td", { class: "figure" }));
    const update = (row) => {
      setText(cells[0], format.count(row.count));
      for (const [at, name] of ["p50_ms", "p90_ms", "p99_ms"].entries()) setText(cells[at + 1], format.latency(row[name]));
    };
    const swatch = h("span", { class: `swatch stage-${stage} dash-${index}`, "aria-hidden": "true" });
    return { element: h("tr", {}, h("th", { scope: "row" }, h("label", {}, box, swatch, stage)), cells), update };
  });
  const table = scroller("Latency by stage: sums", h("table", { class: "stages" },
    h("caption", { text: "Since the page's server listens, of the bundle that serves; added up, not averaged" }),
    h("thead", {}, h("tr", {}, ["Stage", "Count", "p50", "p90", "p99"].map((word, index) => h("th", { scope: "col", class: index ? "figure" : null, text: word })))),
    body));
  element.append(table);
  return {
    element,
    reset(series) {
      points = columns(series);
      draw();
    },
    add(newer) {
      push(points, newer);
      draw();
    },
    stages(summed) {
      rows(STAGES.filter((stage) => summed[stage]).map((stage) => ({ stage, ...summed[stage] })));
      setShown(table, Object.keys(summed).length > 0);
    },
    close: drawn.close,
  };
}

/** Curves of rate and temperature. */
export function load(app) {
  const element = h("div", {});
  let points = [];
  const drawn = plot(element, app, {
    label: "Rate and temperature", height: 150,
    scales: { rate: { format: format.rate }, heat: { format: (value) => `${value}\u202f°C`, side: 1 } },
    curves: [
      { name: "rate", class: "stage-invoke", format: format.rate, scale: "rate" },
      { name: "temperature", class: "stage-preprocess", format: format.temperature, scale: "heat" },
    ],
  });
  const draw = () => drawn.set(points.map((point) => point.time), ["rate", "temperature_c"].map((name) => points.map((point) => point[name] ?? null)));
  return {
    element,
    reset(series) {
      points = columns(series);
      draw();
    },
    add(newer) {
      push(points, newer);
      draw();
    },
    close: drawn.close,
  };
}

function columns(series) {
  const at = (values, index) => Object.fromEntries(Object.entries(values ?? {}).map(([stage, each]) => [stage, each[index]]));
  return (series?.time ?? []).map((time, index) => ({
    time, rate: series.rate?.[index] ?? null, temperature_c: series.temperature_c?.[index] ?? null,
    p50_ms: at(series.p50_ms, index), p99_ms: at(series.p99_ms, index),
  }));
}

function push(points, newer) {
  for (const point of newer) if (points.length === 0 || point.time > points.at(-1).time) points.push(point);
  cut(points);
}

/** The stream of answers with what was looked at, the mix of labels, the confidences. */
export function answers(app) {
  let kept = [];
  let paused = false;
  let missed = 0;
  const list = h("ol", { class: "answers" });
  const none = h("p", { class: "soft", text: "No answer was heard yet; boards report them where reporting.predictions is on." });
  const pause = h("button", { type: "button", "aria-pressed": "false", text: "Pause", on: { click: () => {
    paused = !paused;
    missed = 0;
    pause.setAttribute("aria-pressed", String(paused));
    draw();
  } } });
  const picture = thumbnail(app);
  const stream = h("div", { class: "stream-parts" }, picture.element, h("div", {}, h("p", { class: "buttons" }, pause), list, none));
  const update = keyed(list, (each) => `${each.time}\n${each.item}`, answerView);
  const mix = labelMix("Labels by how often they won");
  const scores = confidence("Winners by score, in percent");
  const legend = h("p", { class: "soft", text: "The mark is the reference: what the bundle answered where it was made." });
  const draw = () => {
    setText(pause, paused ? `Go on${missed ? ` (${format.count(missed)} newer)` : ""}` : "Pause");
    setShown(none, kept.length === 0);
    setShown(pause, kept.length > 0);
    if (!paused) update(kept.slice(0, SHOWN_ANSWERS));
  };
  const add = (newer, shown) => {
    if (shown !== null) picture.update(shown);
    if (newer.length === 0) return;
    const known = new Set(kept.map((each) => `${each.time}\n${each.item}`));
    const fresh = newer.filter((each) => !known.has(`${each.time}\n${each.item}`));
    if (paused) missed += fresh.length;
    kept = [...fresh, ...kept].sort((a, b) => (b.time ?? 0) - (a.time ?? 0)).slice(0, KEPT_ANSWERS);
    draw();
  };
  return {
    stream,
    mix: h("div", {}, mix.element, legend),
    scores: scores.element,
    add,
    reset(detail) {
      kept = [];
      add(detail.predictions ?? [], detail.thumbnail ?? null);
      draw();
    },
    sums(detail) {
      mix.update(detail.labels ?? [], detail.reference?.labels ?? null);
      scores.update(detail.scores ?? [], detail.reference?.scores ?? null);
      setShown(legend, Boolean(detail.reference));
    },
  };
}

function answerView(answer) {
  const [best, ...others] = answer.top;
  const meter = bar();
  meter.update(best?.score ?? 0);
  const rest = others.slice(0, 2).map((each) => `${each.label} ${format.percent(each.score)}`).join(", ");
  const element = h("li", {},
    h("span", { class: "what" }, h("strong", { text: best?.label ?? "nothing" }), " ", h("span", { class: "figure", text: best ? format.percent(best.score) : "" })),
    meter.element,
    h("span", { class: "soft rest", text: rest }),
    h("span", { class: "soft from" }, h("time", { text: format.clock(answer.time) }), ` · ${format.latency(answer.total_ms)} · `, h("span", { class: "item", text: answer.item })));
  return { element, update: () => {} };
}

function thumbnail(app) {
  const canvas = h("canvas", { width: 128, height: 128, role: "img" });
  const caption = h("figcaption", {});
  const element = h("figure", { class: "thumbnail", hidden: true }, canvas, caption);
  let newest = null;
  async function update(shown) {
    if (typeof shown.jpeg !== "string" || (newest !== null && newest.time === shown.time && newest.item === shown.item)) return;
    newest = shown;
    let bitmap;
    try {
      const bytes = Uint8Array.from(atob(shown.jpeg), (letter) => letter.charCodeAt(0));
      bitmap = await createImageBitmap(new Blob([bytes], { type: "image/jpeg" }));
    } catch {
      // Not a picture: the board's answers are shown without.
      return;
    }
    if (newest !== shown) return;
    canvas.width = Math.min(bitmap.width, 512);
    canvas.height = Math.min(bitmap.height, 512);
    canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    const best = shown.top?.[0];
    const words = `${best ? `${best.label} ${format.percent(best.score)}` : "no answer"}, ${format.clock(shown.time, app.store.now())}`;
    canvas.setAttribute("aria-label", `What the board looked at: ${shown.item}`);
    setText(caption, words);
    setShown(element, true);
  }
  return { element, update: (shown) => void update(shown) };
}
