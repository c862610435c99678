/**
 * Hash routes to pages: `#/`, `#/boards/NAME`, `#/models[/NAME]`, `#/rollouts[/ID]`, `#/benchmarks`, each with `?key=value`.
 *
 * A page is a module in pages/ that exports `mount(root, app, {parameter, query})` and returns what of these it has:
 * {title, unmount(), move(step), escape(), search()}. Rules: a page is loaded when it is first opened; one that is slow to
 * load and no longer wanted is not shown. `app` is made in main.js.
 */

import { h } from "./dom.js";

const PAGES = {
  fleet: () => import("./pages/fleet.js"),
  boards: () => import("./pages/board.js"),
  models: () => import("./pages/model.js"),
  rollouts: () => import("./pages/rollouts.js"),
  rollout: () => import("./pages/rollout.js"),
  benchmarks: () => import("./pages/benchmarks.js"),
};

/** Read a hash. Returns {page, parameter, query}; page is null where there is none. */
export function parse(hash) {
  const [, path, query = ""] = /^#?([^?]*)\??(.*)$/s.exec(hash);
  let parts;
  try {
    parts = path.split("/").filter(Boolean).map(decodeURIComponent);
  } catch {
    return { page: null, parameter: null, query: new URLSearchParams() };
  }
  const [first = "fleet", parameter = null] = parts;
  let page = first;
  if (first === "fleet" && parts.length > 1) page = null;
  if (first === "rollouts" && parameter !== null) page = "rollout";
  if (first === "boards" && parameter === null) page = "fleet";
  return { page: Object.hasOwn(PAGES, page ?? "") ? page : null, parameter, query: new URLSearchParams(query) };
}

/** Where a board's page is. */
export const boardAddress = (board) => `#/boards/${encodeURIComponent(board)}`;
/** Where a rollout's page is. */
export const rolloutAddress = (id) => `#/rollouts/${encodeURIComponent(id)}`;
/** Where a model's page is. */
export const modelAddress = (name) => `#/models/${encodeURIComponent(name)}`;

/** Show the page that the address bar says, now and whenever it changes. Returns {current()}. */
export function start(app, main) {
  let current = {};
  let generation = 0;

  async function show() {
    generation += 1;
    const mine = generation;
    const { page, parameter, query } = parse(location.hash);
    for (const link of document.querySelectorAll("#nav a")) {
      const here = link.dataset.page === page || (link.dataset.page === "fleet" && page === "boards") ||
        (link.dataset.page === "rollouts" && page === "rollout");
      if (here) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    let module;
    try {
      module = page === null ? null : await PAGES[page]();
    } catch (error) {
      module = null;
      console.warn(error);
    }
    if (mine !== generation) return;
    current.unmount?.();
    const root = h("div", { class: `page page-${page ?? "lost"}` });
    main.replaceChildren(root);
    if (module === null) {
      root.append(h("h1", { text: "There is no such page" }), h("p", {}, h("a", { href: "#/", text: "To the fleet" })));
      current = {};
      // Whether the dashboard answers is told here, too.
      app.feed.follow();
    } else current = module.mount(root, app, { parameter, query }) ?? {};
    document.title = [current.title, app.store.name || null, "tflotilla"].filter(Boolean).join(" · ");
    window.scrollTo(0, 0);
    if (generation > 1) main.focus({ preventScroll: true });
  }

  window.addEventListener("hashchange", (event) => {
    // The skip link and pages' own anchors are no pages.
    if (location.hash !== "" && !location.hash.startsWith("#/")) return;
    // A page that keeps its filter in the address replaces the state, which is silent: this is a real move.
    if (event.newURL !== event.oldURL) void show();
  });
  void show();
  return { current: () => current };
}
