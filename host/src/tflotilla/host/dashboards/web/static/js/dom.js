/**
 * Elements, made and changed with as few touches as possible.
 *
 * Rules: what boards say becomes text nodes and attribute values, never markup; a value that has not changed is not
 * written again. What it does NOT do: know what it shows.
 */

/** Make an element. `given`: attributes, `class`, `text`, `on` ({event: listener}), `style` ({property: value}). */
export function h(tag, given = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "class") element.className = value;
    else if (key === "text") element.textContent = value;
    else if (key === "on") for (const [name, listener] of Object.entries(value)) element.addEventListener(name, listener);
    else if (key === "style") for (const [name, each] of Object.entries(value)) element.style.setProperty(name, each);
    else element.setAttribute(key, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A frame for what may be wider than the page; it can be scrolled by keyboard, too. */
export function scroller(label, ...children) {
  return h("div", { class: "wide", tabindex: "0", role: "group", "aria-label": label }, children);
}

/** Change an element's text, if it differs. */
export function setText(element, text) {
  if (element.firstChild === null) {
    if (text !== "") element.append(text);
  } else if (element.firstChild.data !== text) element.firstChild.data = text;
}

/** Change an attribute, if it differs; null takes it away. */
export function setAttribute(element, name, value) {
  if (value === null || value === undefined || value === false) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, String(value));
}

/** Show or hide. */
export function setShown(element, shown) {
  if (element.hidden === shown) element.hidden = !shown;
}

/** Put `wanted` into `parent`, in order, moving only what is out of place and dropping what is no longer wanted. */
export function setChildren(parent, wanted) {
  const kept = new Set(wanted);
  for (const child of [...parent.children]) if (!kept.has(child)) child.remove();
  let next = parent.firstElementChild;
  for (const element of wanted) {
    if (element === next) next = next.nextElementSibling;
    else parent.insertBefore(element, next);
  }
}

/**
 * Keep elements for keyed items: `make(item)` gives {element, update(item)}; those of items that are gone are dropped.
 * Returns the function that takes the newest items, in order.
 */
export function keyed(parent, keyOf, make) {
  const made = new Map();
  return (items) => {
    const elements = [];
    const seen = new Set();
    for (const item of items) {
      const key = keyOf(item);
      if (seen.has(key)) continue;
      seen.add(key);
      let view = made.get(key);
      if (view === undefined) made.set(key, (view = make(item)));
      view.update(item);
      elements.push(view.element);
    }
    for (const key of [...made.keys()]) if (!seen.has(key)) made.delete(key);
    setChildren(parent, elements);
  };
}

/** A shape and a word for a status: never colour alone. */
export function statusMark(status = "unknown") {
  const shape = h("span", { class: "shape", "aria-hidden": "true" });
  const word = h("span", { class: "word" });
  const element = h("span", { class: "status" }, shape, word);
  const update = (now) => {
    setAttribute(element, "data-status", statusKind(now));
    setText(word, WORDS[now] ?? now.replaceAll("_", " "));
  };
  update(status);
  return { element, update };
}

const KINDS = {
  online: "good", serving: "good", succeeded: "good", passed: "good", done: "good",
  offline: "off", silent: "silent", unknown: "unknown", waiting: "unknown", pending: "unknown", superseded: "unknown",
  failing: "bad", failed: "bad", rejected: "bad", rolled_back: "bad", halted: "bad", aborted: "bad", stuck: "bad",
  undone: "bad", paused: "warn", approval: "warn", rolling_back: "warn", undoing: "warn",
};

const WORDS = { approval: "needs approval" };

/** Which shape and colour a status word has: `good`, `bad`, `warn`, `off`, `silent`, `unknown`, or `busy` for what moves. */
export function statusKind(status) {
  return KINDS[status] ?? "busy";
}
