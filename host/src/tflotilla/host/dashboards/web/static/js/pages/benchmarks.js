/** Benchmarks: two runs compared. */

import { h } from "../dom.js";

export function mount(root, app) {
  root.append(h("h1", { text: "Benchmarks" }));
  app.feed.follow();
  return { title: "Benchmarks" };
}
