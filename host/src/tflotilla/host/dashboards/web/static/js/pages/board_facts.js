/** What stands still on a board's page: the model, the machine, deployments and events. Nothing known is a dash. */

import { h, keyed, setAttribute, setShown, setText, statusMark } from "../dom.js";
import * as format from "../format.js";
import { runtimeOf } from "../tiles.js";

/** Words beside their values: {element, update([[word, value]])}. */
function definitions() {
  const element = h("dl", { class: "facts" });
  const update = keyed(element, ([word]) => word, ([word]) => {
    const value = h("dd", {});
    return {
      element: h("div", {}, h("dt", { text: word }), value),
      update: ([, said, bad]) => {
        setText(value, said === null || said === undefined || said === "" ? format.UNKNOWN : String(said));
        setAttribute(value, "data-bad", Boolean(bad));
      },
    };
  });
  return { element, update };
}

/** What serves, and by what it runs. */
export function modelCard() {
  const link = h("a", {});
  const list = definitions();
  const element = h("div", {}, h("p", { class: "served" }, link), list.element);
  const update = (detail, address, runtimeOf) => {
    const { tile, card } = detail;
    setText(link, tile.model ?? "no bundle serves");
    setAttribute(link, "href", tile.name ? address(tile.name) : null);
    const evaluation = card?.evaluation ?? null;
    const delegate = tile.delegate ?? null;
    const differs = delegate !== null && Boolean(delegate.requested) && delegate.requested !== delegate.active;
    list.update([
      ["Digest", format.shortDigest(tile.digest)],
      ["Release", card?.release],
      ["Scheme", card?.scheme],
      ["Size", format.bytes(card?.size_bytes)],
      ["Accuracy", accuracy(evaluation)],
      ["Runtime", runtimeOf({ ...tile, delegate: null }) || null],
      ["Delegate requested", delegate ? delegate.requested ?? "none" : null],
      ["Delegate active", delegate ? `${delegate.active ?? "none"}${differs ? " (not what was requested)" : ""}` : null, differs],
      ...(delegate?.reason ? [["Why", delegate.reason, differs]] : []),
    ]);
  };
  return { element, update };
}

function accuracy(evaluation) {
  if (evaluation === null || typeof evaluation.accuracy !== "number") return null;
  const float = typeof evaluation.float_accuracy === "number" ? ` (float ${format.percent(evaluation.float_accuracy, 1)})` : "";
  return `${format.percent(evaluation.accuracy, 1)}${float}`;
}

/** What was measured last because somebody asked for it, here or elsewhere. */
export function benchmark(app) {
  const list = definitions();
  const none = h("p", { class: "soft", text: "None was heard of since the page's server listens." });
  const element = h("div", {}, list.element, none);
  const update = (said) => {
    setShown(none, said === null);
    if (said === null) return list.update([]);
    const [percentiles, bad] = [["p50_ms", "p90_ms", "p99_ms"], said.error !== null || said.valid === false];
    return list.update([
      ["Measured", `${format.clock(said.time, app.store.now())}${said.total > 1 ? `, ${said.position} of ${said.total}` : ""}`],
      ["Bundle", said.model],
      ["Runtime", runtimeOf(said) || null],
      ...(said.error === null
        ? [
            ["Invokes", format.count(said.runs)],
            ...percentiles.map((name) => [`${name.slice(0, 3)}, invoke`, format.latency(said[name])]),
            ["Verdict", said.valid ? "valid" : `not valid: ${said.reasons.join("; ")}`, bad],
          ]
        : [["Failed", said.error, bad]]),
    ]);
  };
  return { element, update };
}

/** What the machine is. */
export function facts(app) {
  const { element, update } = definitions();
  return {
    element,
    update(detail) {
      const said = detail.facts ?? {};
      const boot = typeof detail.uptime_s === "number" ? format.duration(detail.uptime_s) : null;
      update([
        ["Machine", said.model],
        ["Host name", said.hostname],
        ["Architecture", [said.arch, said.cores ? format.plural(said.cores, "core") : null].filter(Boolean).join(", ")],
        ["Memory", format.bytes(said.ram_bytes)],
        ["Disk free", format.bytes(said.disk_free_bytes)],
        ["System", [said.distribution, said.kernel].filter(Boolean).join(", ")],
        ["Python", [said.python, said.libc].filter(Boolean).join(", ")],
        ["Runtimes", (said.runtimes ?? []).map((each) => `${each.name} ${each.version}`).join(", ")],
        ["Agent", detail.agent_version],
        ["Agent runs for", boot],
        ["Source", detail.source],
        ["Reports that wait", format.count(detail.outbox_rows)],
        ["Reports dropped", format.count(detail.outbox_dropped), detail.outbox_dropped > 0],
        ["Reports missing", format.count(detail.missing), detail.missing > 0],
        ["Reports repeated", format.count(detail.duplicates)],
        ["Facts as of", said.time ? format.clock(said.time, app.store.now()) : null],
      ]);
    },
  };
}

/** How deployments ended, the newest first. */
export function deployments(app) {
  return history(app, "No deployment was heard of.", (each) => `${each.time}\n${each.title}\n${each.state}`, (each) => {
    const mark = statusMark(each.state);
    const words = [each.detail, each.error].filter(Boolean).join(": ");
    return [mark.element, h("strong", { text: each.title }), words ? h("span", { class: "words", text: words }) : null];
  });
}

/** What the board wanted people to know, the newest first. */
export function events(app) {
  const kinds = { error: "failed", warning: "paused", info: "online" };
  return history(app, "No event was heard of.", (each) => `${each.time}\n${each.kind}\n${each.message}`, (each) => {
    const mark = statusMark(kinds[each.level] ?? "unknown");
    mark.element.querySelector(".word").textContent = each.level;
    return [mark.element, h("strong", { text: each.kind }), h("span", { class: "words", text: each.message })];
  });
}

function history(app, nothing, keyOf, content) {
  const list = h("ol", { class: "history" });
  const none = h("p", { class: "soft", text: nothing });
  const update = keyed(list, keyOf, (each) => ({
    element: h("li", {}, h("time", { class: "soft", text: format.clock(each.time, app.store.now()) }), content(each)),
    update: () => {},
  }));
  return {
    element: h("div", {}, list, none),
    update(items) {
      none.hidden = items.length > 0;
      update(items);
    },
  };
}
