/**
 * The keyboard: one place that knows every key.
 *
 * Rules: nothing happens while something is typed, a dialog is open, or with Ctrl, Alt or Meta; single keys can be turned
 * off (help), because they are in the way of speech input. What it does NOT do: know what pages do with a key.
 */

export const KEYS = [
  ["/", "to the filter"],
  ["j, k", "next and previous board, rollout or version"],
  ["Enter", "open it"],
  ["Esc", "close, clear the filter, back to the fleet"],
  ["g then f, m, r, b", "fleet, models, rollouts, benchmarks"],
  ["t", "light, dark, or as the system"],
  ["?", "this help"],
];
const PLACES = { f: "#/", m: "#/models", r: "#/rollouts", b: "#/benchmarks" };
const STORED = "single-keys";

export function singleKeys() {
  return localStorage.getItem(STORED) !== "off";
}

export function setSingleKeys(on) {
  localStorage.setItem(STORED, on ? "on" : "off");
}

/** Listen. `current()` gives the page, `shell` has help() and nextTheme(). */
export function listen(current, shell) {
  let going = false;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.defaultPrevented) return;
    if (document.querySelector("dialog[open]")) return;
    const page = current();
    const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
    if (event.key === "Escape") {
      if (page.escape?.(typing)) event.preventDefault();
      else if (typing) typing.blur();
      return;
    }
    if (typing || !singleKeys()) return;
    const went = going;
    going = event.key === "g";
    if (went && PLACES[event.key]) location.hash = PLACES[event.key];
    else if (event.key === "/" && page.search) page.search();
    else if (event.key === "j" && page.move) page.move(1);
    else if (event.key === "k" && page.move) page.move(-1);
    else if (event.key === "?") shell.help();
    else if (event.key === "t") shell.nextTheme();
    else return;
    event.preventDefault();
  });
}

/** Move the focus among links that `selector` finds in `root`, from where it is; returns what has it then. */
export function moveFocus(root, selector, step) {
  const all = [...root.querySelectorAll(selector)];
  if (all.length === 0) return null;
  const at = all.indexOf(document.activeElement?.closest?.(selector));
  const next = all[at < 0 ? (step > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, at + step))];
  next.focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
  return next;
}
