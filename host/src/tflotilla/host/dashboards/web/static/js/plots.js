/**
 * Curves over time, by uPlot: in the page's colours, as wide as there is room, with their figures as a table.
 *
 * Rules: each curve has a dash pattern of its own beside its colour; where nothing was said for long the curve breaks; the
 * figures can be had as a table, because a canvas says nothing to a screen reader. What it does NOT do: keep data.
 */

import uPlot from "../vendor/uplot/uPlot.esm.js";
import { h, scroller, setText } from "./dom.js";
import { clock, latency, percent } from "./format.js";

const DASHES = [[], [7, 3], [2, 3], [9, 3, 2, 3], [4, 2]];
const TABLE_ROWS = 20;
const BREAKS_AFTER_S = 30;
const BREAKS_AFTER_STEPS = 5;

/** The colour that a class gives, as a canvas wants it. */
function colour(root, className) {
  const probe = h("span", { class: className, hidden: true });
  root.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

/**
 * A plot in `root`. `curves`: [{name, class, format(value), scale}], `label`: what it shows, in words, `height`: pixels,
 * `scales`: {name: {format(value), side}}. Returns {set(times, columns), show(index, shown), close()}.
 */
export function plot(root, app, { curves, label, height, scales }) {
  const readout = h("p", { class: "readout", "aria-hidden": "true" });
  const place = h("div", { class: "canvas", role: "img", "aria-label": label });
  const body = h("tbody");
  const table = h("table", {},
    h("caption", { text: `${label}: the last ${TABLE_ROWS} windows` }),
    h("thead", {}, h("tr", {}, h("th", { scope: "col", text: "Time" }), curves.map((curve) => h("th", { scope: "col", text: curve.name })))),
    body);
  const details = h("details", { class: "figures-of", on: { toggle: () => fillTable() } },
    h("summary", { text: "Figures as a table" }), scroller(`${label}: figures`, table));
  root.append(h("figure", { class: "plot" }, place, readout, details));

  let data = [[], ...curves.map(() => [])];
  const shown = curves.map(() => true);
  let chart = null;
  let idle = "";

  function fillTable() {
    if (!details.open) return;
    const rows = [];
    for (let at = data[0].length - 1; at >= 0 && rows.length < TABLE_ROWS; at -= 1) {
      if (data.slice(1).every((column) => column[at] === null)) continue;
      rows.push(h("tr", {}, h("th", { scope: "row", text: clock(data[0][at], app.store.now()) }),
        curves.map((curve, index) => h("td", { class: "figure", text: curve.format(data[index + 1][at]) }))));
    }
    body.replaceChildren(...rows);
  }

  function options() {
    const [ink, line] = [colour(root, "soft"), colour(root, "rule")];
    const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    return {
      width: Math.max(place.clientWidth, 200),
      height,
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
      scales: { x: { time: true }, ...Object.fromEntries(Object.keys(scales).map((name) => [name, { range: fromZero }])) },
      series: [
        {},
        ...curves.map((curve, index) => ({
          label: curve.name, scale: curve.scale, stroke: colour(root, curve.class), width: 1.6, dash: DASHES[index % DASHES.length],
          show: shown[index], points: { show: false }, spanGaps: false,
        })),
      ],
      axes: [
        { ...axis, space: 70, size: 30, values: (_chart, ticks) => ticks.map((tick) => new Date(tick * 1000).toLocaleTimeString("en-GB").replace(/:00$/, "")) },
        // uPlot takes an undefined side for the top: the left is 3.
        ...Object.entries(scales).map(([scale, { format, side = 3 }]) => ({
          ...axis, scale, side, size: 66, space: 34, grid: side === 1 ? { show: false } : axis.grid,
          values: (_chart, ticks) => ticks.map((tick) => format(tick)),
        })),
      ],
      hooks: { setCursor: [(now) => read(now.cursor.idx)] },
    };
  }

  function read(index) {
    if (index === null || index === undefined || data[0][index] === undefined) {
      setText(readout, idle);
      return;
    }
    const parts = curves.flatMap((curve, each) => (shown[each] ? [`${curve.name} ${curve.format(data[each + 1][index])}`] : []));
    setText(readout, [clock(data[0][index], app.store.now()), ...parts].join(" · "));
  }

  function draw() {
    chart?.destroy();
    chart = new uPlot(options(), data, place);
  }

  const observer = new ResizeObserver(() => {
    if (chart === null) draw();
    else if (Math.abs(chart.width - place.clientWidth) > 1 && place.clientWidth > 0) chart.setSize({ width: place.clientWidth, height });
  });
  observer.observe(place);
  const leave = app.shell.onTheme(draw);
  return {
    set(times, columns) {
      data = broken(times, columns);
      idle = times.length === 0 ? "Nothing was measured yet." : "";
      chart?.setData(data);
      if (chart === null || chart.cursor.idx === null || chart.cursor.idx === undefined) setText(readout, idle);
      fillTable();
    },
    show(index, on) {
      shown[index] = on;
      chart?.setSeries(index + 1, { show: on });
    },
    close() {
      leave();
      observer.disconnect();
      chart?.destroy();
    },
  };
}

function fromZero(_chart, _low, high) {
  return [0, high === null || high <= 0 ? 1 : high * 1.12];
}

/** Columns with an empty row wherever nothing was said for long, so that no line is drawn across. */
export function broken(times, columns) {
  const steps = [];
  for (let at = 1; at < times.length; at += 1) steps.push(times[at] - times[at - 1]);
  const usual = steps.length > 0 ? [...steps].sort((a, b) => a - b)[steps.length >> 1] : 0;
  const longest = Math.max(BREAKS_AFTER_S, BREAKS_AFTER_STEPS * usual);
  if (!steps.some((step) => step > longest)) return [times, ...columns];
  const result = [[], ...columns.map(() => [])];
  times.forEach((time, at) => {
    if (at > 0 && steps[at - 1] > longest) {
      result[0].push((time + times[at - 1]) / 2);
      for (let each = 1; each < result.length; each += 1) result[each].push(null);
    }
    result[0].push(time);
    columns.forEach((column, each) => result[each + 1].push(column[at]));
  });
  return result;
}

/**
 * Cumulative distributions in `root`: `curves`: [{name, class, points: [{ms, share}]}]. Returns {close()}.
 *
 * Each curve has values of its own on the x axis, so uPlot gets all of them together, with gaps that it spans.
 */
export function distribution(root, app, { curves, label }) {
  const place = h("div", { class: "canvas", role: "img", "aria-label": label });
  const keys = curves.map((curve, index) => h("span", { class: curve.class }, h("span", { class: `swatch dash-${index}`, "aria-hidden": "true" }), " ", h("span", { class: "soft", text: curve.name })));
  root.append(h("figure", { class: "plot" }, place, h("p", { class: "readout keys-of" }, keys)));
  const values = [...new Set(curves.flatMap((curve) => curve.points.map((point) => point.ms)))].sort((a, b) => a - b);
  const columns = curves.map((curve) => {
    const at = new Map(curve.points.map((point) => [point.ms, point.share]));
    return values.map((ms) => at.get(ms) ?? null);
  });
  let chart = null;

  function draw() {
    chart?.destroy();
    const [ink, line] = [colour(root, "soft"), colour(root, "rule")];
    const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    chart = new uPlot({
      width: Math.max(place.clientWidth, 200), height: 180, legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
      scales: { x: { time: false }, y: { range: [0, 1] } },
      series: [{}, ...curves.map((curve, index) => ({ label: curve.name, stroke: colour(root, curve.class), width: 1.6, dash: DASHES[index], points: { show: false }, spanGaps: true }))],
      axes: [
        { ...axis, space: 70, size: 30, values: (_chart, ticks) => ticks.map((tick) => latency(tick)) },
        { ...axis, size: 52, values: (_chart, ticks) => ticks.map((tick) => percent(tick)) },
      ],
    }, [values, ...columns], place);
  }

  const observer = new ResizeObserver(() => {
    if (chart === null) draw();
    else if (Math.abs(chart.width - place.clientWidth) > 1 && place.clientWidth > 0) chart.setSize({ width: place.clientWidth, height: 180 });
  });
  observer.observe(place);
  const leave = app.shell.onTheme(draw);
  return {
    close() {
      leave();
      observer.disconnect();
      chart?.destroy();
    },
  };
}
