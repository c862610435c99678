/** All rollouts, the newest first, each as a strip; those under way stand before those that are over. */

import { h, keyed, setShown, setText } from "../dom.js";
import { moveFocus } from "../keys.js";
import { over, strip } from "../rollouts.js";

export function mount(root, app) {
  const list = h("div", { class: "strips" });
  const none = h("p", { class: "soft", text: "There has been no rollout yet: `tflotilla rollout start` begins one." });
  const problem = h("p", { class: "problem", role: "status" });
  root.append(h("h1", { text: "Rollouts" }), problem, none, list);
  const update = keyed(list, (row) => row.id, (row) => strip(app, row, "h2"));
  const draw = () => {
    if (!app.store.loaded) return;
    setText(problem, app.store.rolloutsProblem ?? "");
    setShown(none, app.store.rollouts.length === 0 && app.store.rolloutsProblem === null);
    update([...app.store.rollouts].sort((a, b) => over(a) - over(b) || (b.started ?? 0) - (a.started ?? 0)));
  };
  app.feed.follow();
  const unmount = app.store.subscribe((kinds) => {
    if (kinds.has("rollouts") || kinds.has("source") || kinds.has("tick")) draw();
  });
  draw();
  return {
    title: "Rollouts",
    unmount,
    move: (step) => void moveFocus(list, ".rollout .title > a", step),
    escape: () => {
      location.hash = "#/";
      return true;
    },
  };
}
