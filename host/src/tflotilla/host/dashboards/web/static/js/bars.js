/**
 * Bars that stand for shares: label mixes and confidences, held against what the bundle answered where it was made.
 *
 * Rules: every bar stands beside its figure, so nothing is said by length alone; the reference is a mark, not a second
 * colour. Used by the pages of boards and of models.
 */

import { h, keyed, scroller, setAttribute, setShown, setText } from "./dom.js";
import { count, percent } from "./format.js";

/** A bar from 0 to 1 with an optional mark: {element, update(share, reference)}. */
export function bar() {
  const fill = h("span", { class: "fill" });
  const mark = h("span", { class: "mark" });
  const element = h("span", { class: "meter", "aria-hidden": "true" }, fill, mark);
  const update = (share, reference = null) => {
    const width = `${Math.min(1, Math.max(0, share ?? 0)) * 100}%`;
    if (fill.style.width !== width) fill.style.width = width;
    setShown(mark, reference !== null && reference !== undefined);
    const place = `${Math.min(1, Math.max(0, reference ?? 0)) * 100}%`;
    if (mark.style.left !== place) mark.style.left = place;
  };
  return { element, update };
}

/**
 * Labels by how often they won, as a table: {element, update(labels, reference)}.
 * `labels`: [{label, count, share, mean_score}]; `reference`: [{label, share}] or null.
 */
export function labelMix(caption, most = 12) {
  const body = h("tbody");
  const rest = h("p", { class: "soft" });
  const table = h("table", { class: "mix" },
    h("caption", { class: "unseen", text: caption }),
    h("thead", {}, h("tr", {}, ["Label", "", "Share", "Reference", "Mean score", "Count"].map((word, index) =>
      h("th", { scope: "col", class: index > 1 ? "figure" : null }, index === 1 ? h("span", { class: "unseen", text: "Bar" }) : word)))),
    body);
  const element = h("div", {}, scroller(caption, table), rest);
  const rows = keyed(body, (row) => row.label, () => {
    const meter = bar();
    const cells = ["share", "reference", "score", "count"].map(() => h("td", { class: "figure" }));
    const name = h("th", { scope: "row" });
    const update = (row) => {
      setText(name, row.label);
      meter.update(row.share, row.reference);
      setText(cells[0], percent(row.share));
      setText(cells[1], percent(row.reference));
      setText(cells[2], percent(row.mean_score));
      setText(cells[3], count(row.count));
    };
    return { element: h("tr", {}, name, h("td", { class: "bar-cell" }, meter.element), cells), update };
  });
  const update = (labels, reference = null) => {
    const expected = new Map((reference ?? []).map((each) => [each.label, each.share]));
    const found = labels.map((each) => ({ ...each, reference: reference === null ? null : expected.get(each.label) ?? 0 }));
    const seen = new Set(labels.map((each) => each.label));
    for (const [label, share] of expected) if (!seen.has(label)) found.push({ label, count: 0, share: 0, mean_score: null, reference: share });
    // What is expected and does not come is as telling as what comes.
    found.sort((a, b) => Math.max(b.share ?? 0, b.reference ?? 0) - Math.max(a.share ?? 0, a.reference ?? 0));
    rows(found.slice(0, most));
    setText(rest, labels.length === 0 ? "No answer was reported yet." : found.length > most ? `and ${count(found.length - most)} more labels` : "");
    setShown(table, found.length > 0);
  };
  return { element, update };
}

/**
 * How sure the model was: ten upright bars with their figures: {element, update(scores, reference)}.
 * `scores`: ten counts; `reference`: ten shares or null.
 */
export function confidence(caption) {
  const columns = Array.from({ length: 10 }, (_each, bin) => {
    const fill = h("span", { class: "fill" });
    const mark = h("span", { class: "mark" });
    const text = h("span", { class: "unseen" });
    const foot = h("span", { class: "foot", "aria-hidden": "true", text: bin % 2 === 0 ? `${bin * 10}` : "" });
    return { fill, mark, text, element: h("li", {}, h("span", { class: "column", "aria-hidden": "true" }, fill, mark), foot, text) };
  });
  const list = h("ol", { class: "histogram", "aria-label": caption }, columns.map((column) => column.element));
  const none = h("p", { class: "soft", text: "No score was reported yet." });
  const element = h("div", {}, list, none);
  const update = (scores, reference = null) => {
    const total = scores.reduce((sum, each) => sum + each, 0);
    const shares = scores.map((each) => (total > 0 ? each / total : 0));
    const top = Math.max(0.01, ...shares, ...(reference ?? []).map((each) => each ?? 0));
    setShown(list, total > 0);
    setShown(none, total === 0);
    columns.forEach((column, bin) => {
      column.fill.style.height = `${(shares[bin] / top) * 100}%`;
      const expected = reference?.[bin] ?? null;
      setShown(column.mark, expected !== null);
      if (expected !== null) column.mark.style.bottom = `${(expected / top) * 100}%`;
      const words = `Scores of ${bin * 10} to ${bin * 10 + 10} %: ${percent(shares[bin])}`;
      setText(column.text, expected === null ? words : `${words}, reference ${percent(expected)}`);
      setAttribute(column.element, "title", words);
    });
  };
  return { element, update };
}
