/** Models: versions side by side over the fleet. */

import { h } from "../dom.js";

export function mount(root, app) {
  root.append(h("h1", { text: "Models" }));
  app.feed.follow();
  return { title: "Models" };
}
