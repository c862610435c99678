/**
 * The page: a store that the stream fills, a shell around, and one page in the middle.
 *
 * `app`, which every page gets: {store, feed, shell, actions, get(path)}. `get` fetches JSON of the API, and throws an Error
 * with a line for people and the `status`, if there was an answer.
 */

import { Actions, reason } from "./actions.js";
import { Feed } from "./feed.js";
import { listen } from "./keys.js";
import { start } from "./router.js";
import { Shell } from "./shell.js";
import { Store } from "./store.js";

const store = new Store();
const shell = new Shell(store);
const actions = new Actions(store, (text) => shell.say(text), () => store.tell("source"));
const feed = new Feed(store);
shell.bindToken(actions);

async function get(path) {
  let answer;
  try {
    answer = await fetch(path, { headers: { Accept: "application/json" } });
  } catch {
    throw new Error("The dashboard does not answer.");
  }
  if (answer.ok) return answer.json();
  throw Object.assign(new Error(reason(await answer.text(), answer.status)), { status: answer.status });
}

store.heard();
const app = { store, feed, shell, actions, get };
const router = start(app, document.getElementById("main"));
listen(() => router.current(), shell);
