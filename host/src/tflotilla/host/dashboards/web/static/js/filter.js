/**
 * The filter box: the words of the command line's selectors, asked of tiles.
 *
 *     pi-7 · pi-* · key=value · key!=value · online · offline     side by side: names add, conditions narrow, ! leaves out
 *     and · or · not · ( … ) · "quoted values"
 *
 * Besides labels, `key=value` asks for name, status, bundle, version, runtime, delegate and throttled; a label goes before
 * them. A word that is no board's name picks the boards whose name holds it, so that a list narrows while one types.
 * What it does NOT do: groups and facts (@kitchen, arch, python, os, agent): tiles don't carry them, and the box says so.
 */

const TOKEN = /\s*(?:([(),])|((?:[^\s(),"']|"[^"]*"|'[^']*')+)|(\S))/y;
const OPERATORS = new Set(["and", "or", "not"]);
const WILD = /[*?[]/;
const ELSEWHERE = new Set(["arch", "model", "python", "os", "agent", "group"]);

const FACTS = {
  name: (tile) => [tile.board],
  status: (tile) => [tile.status],
  bundle: (tile) => [tile.model, tile.name, tile.digest, tile.digest?.replace(/^sha256:/, "").slice(0, 12)],
  version: (tile) => [tile.version],
  runtime: (tile) => [tile.runtime, tile.runtime?.split(" ")[0], tile.runtime?.replace(" ", "==")],
  delegate: (tile) => [tile.delegate?.active ?? (tile.delegate ? "none" : null)],
  throttled: (tile) => [tile.throttled === null || tile.throttled === undefined ? null : tile.throttled ? "yes" : "no"],
};

/** Read a filter. Returns {test(tile), problem}: what can't be read picks everything, and `problem` says why. */
export function compile(text, tiles) {
  const everything = { test: () => true, problem: null };
  if (text.trim() === "") return everything;
  try {
    const parser = new Parser(tokens(text), tiles);
    return { test: parser.whole(), problem: null };
  } catch (error) {
    if (!(error instanceof FilterError)) throw error;
    return { ...everything, problem: error.message };
  }
}

class FilterError extends Error {}

function tokens(text) {
  const found = [];
  const rest = text.trimEnd();
  TOKEN.lastIndex = 0;
  while (TOKEN.lastIndex < rest.length) {
    const match = TOKEN.exec(rest);
    if (match === null || match[3]) throw new FilterError(`${match?.[3] ?? "it"} begins a quotation that has no end`);
    found.push({ text: match[1] ?? match[2], sign: match[1] !== undefined });
  }
  return found;
}

class Parser {
  constructor(list, tiles) {
    this.list = list;
    this.tiles = tiles;
    this.next = 0;
    this.keys = new Set();
    for (const tile of tiles.values()) for (const key of Object.keys(tile.labels ?? {})) this.keys.add(key);
  }

  whole() {
    const test = this.either();
    if (this.peek()) throw new FilterError(`'and' or 'or' is missing before '${this.peek().text}'`);
    return test;
  }

  either() {
    const parts = [this.both()];
    while (this.take("or")) parts.push(this.both());
    return parts.length === 1 ? parts[0] : (tile) => parts.some((part) => part(tile));
  }

  both() {
    const parts = [this.one()];
    while (this.take("and")) parts.push(this.one());
    return parts.length === 1 ? parts[0] : (tile) => parts.every((part) => part(tile));
  }

  one() {
    if (!this.take("not")) return this.primary();
    const part = this.one();
    return (tile) => !part(tile);
  }

  primary() {
    if (this.peek()?.sign && this.take("(")) {
      const inner = this.either();
      if (!this.take(")")) throw new FilterError("'(' has no ')'");
      return inner;
    }
    const [names, without, conditions] = [[], [], []];
    let terms = 0;
    for (let token = this.peek(); token; token = this.peek()) {
      if (token.text !== "," && (token.sign || OPERATORS.has(token.text))) break;
      this.next += 1;
      if (token.text === ",") continue;
      terms += 1;
      const { kind, wanted, test } = this.term(token.text);
      (wanted ? (kind === "name" ? names : conditions) : without).push(test);
    }
    if (terms === 0) throw new FilterError("something to pick is missing");
    return (tile) =>
      (names.length === 0 || names.some((test) => test(tile))) &&
      conditions.every((test) => test(tile)) &&
      !without.some((test) => test(tile));
  }

  term(text) {
    let wanted = !text.startsWith("!");
    const bare = (wanted ? text : text.slice(1)).replace(/"([^"]*)"|'([^']*)'/g, (_all, a, b) => a ?? b);
    const equals = bare.indexOf("=");
    if (equals >= 0) {
      let key = bare.slice(0, equals);
      if (key.endsWith("!")) [key, wanted] = [key.slice(0, -1), !wanted];
      if (key === "") throw new FilterError(`'${text}' has no key before '='`);
      return { kind: "label", wanted, test: this.labelled(key, bare.slice(equals + 1).replace(/^=/, "")) };
    }
    if (bare.startsWith("@")) throw new FilterError(`'${text}': the page knows no groups; use a label`);
    if (bare === "offline") return { kind: "presence", wanted, test: (tile) => tile.status === "offline" };
    if (bare === "online") {
      const away = new Set(["offline", "silent", "unknown"]);
      return { kind: "presence", wanted, test: (tile) => !away.has(tile.status) };
    }
    return { kind: "name", wanted, test: this.named(bare) };
  }

  named(value) {
    if (value === "all" || value === "*") return () => true;
    if (this.tiles.has(value)) return (tile) => tile.board === value;
    if (WILD.test(value)) {
      const matches = glob(value);
      return (tile) => matches(tile.board);
    }
    return (tile) => tile.board.includes(value.toLowerCase());
  }

  labelled(key, value) {
    const [matches, folded] = [glob(value), glob(value.toLowerCase())];
    const fact = FACTS[key];
    if (!fact && !this.keys.has(key)) {
      if (ELSEWHERE.has(key)) throw new FilterError(`'${key}' can be asked on the command line only`);
      throw new FilterError(`no board has a label '${key}'`);
    }
    return (tile) => {
      const label = tile.labels?.[key];
      if (label !== undefined) return matches(label);
      return fact ? fact(tile).some((each) => typeof each === "string" && folded(each.toLowerCase())) : false;
    };
  }

  peek() {
    return this.list[this.next];
  }

  take(text) {
    if (this.peek()?.text !== text) return false;
    this.next += 1;
    return true;
  }
}

/** `*`, `?`, `[…]` and `[!…]`, over the whole value. */
function glob(pattern) {
  if (!WILD.test(pattern)) return (value) => value === pattern;
  const source = pattern.replace(/\[(!?)([^\]]+)\]|[.*+?^${}()|[\]\\]/g, (found, not, set) => {
    if (set !== undefined) return `[${not ? "^" : ""}${set.replace(/[\\^]/g, "\\$&")}]`;
    return found === "*" ? ".*" : found === "?" ? "." : `\\${found}`;
  });
  let expression;
  try {
    expression = new RegExp(`^(?:${source})$`, "su");
  } catch {
    throw new FilterError(`'${pattern}' is no pattern`);
  }
  return (value) => value === pattern || expression.test(value);
}
