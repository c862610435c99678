/** One rollout: its waves, and what can be done about it. */

import { h, setShown, setText } from "../dom.js";
import { deedButtons, strip } from "../rollouts.js";

export function mount(root, app, { parameter }) {
  const missing = h("p", { class: "soft", text: `No rollout ${parameter} is known.` });
  const buttons = deedButtons(app);
  const place = h("div", {});
  const title = h("h1", { text: parameter });
  root.append(h("p", { class: "crumbs" }, h("a", { href: "#/rollouts", text: "Rollouts" })), title, missing, buttons.element, place);
  let view = null;
  const draw = () => {
    const row = app.store.rollouts.find((each) => each.id === parameter);
    setShown(missing, app.store.loaded && row === undefined);
    if (row === undefined) return;
    if (view === null) place.append((view = strip(app, row, "h2")).element);
    setText(title, row.title);
    view.update(row);
    buttons.update(row);
  };
  app.feed.follow();
  const unmount = app.store.subscribe(draw);
  draw();
  return { title: parameter, unmount, escape: () => ((location.hash = "#/rollouts"), true) };
}
