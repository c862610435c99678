/**
 * Figures as people read them.
 *
 * Rules: what is not known is a dash, never a zero; three digits and a unit; a narrow space keeps the two together.
 */

export const UNKNOWN = "–";
const THIN = "\u202f";

const known = (value) => typeof value === "number" && Number.isFinite(value);

/** `25.4 µs`, `1.84 ms`, `12.0 s`, of milliseconds. */
export function latency(ms) {
  if (!known(ms)) return UNKNOWN;
  for (const [unit, scale] of [["µs", 1e-3], ["ms", 1], ["s", 1e3]]) {
    const value = ms / scale;
    if (value < 999.5 || unit === "s") return `${threeDigits(value)}${THIN}${unit}`;
  }
  return UNKNOWN;
}

/** `2.05`, `20.5`, `205`. */
export function threeDigits(value) {
  const size = Math.abs(value);
  return value.toFixed(size < 9.995 ? 2 : size < 99.95 ? 1 : 0);
}

/** `12.0/s`. */
export function rate(perSecond) {
  return known(perSecond) ? `${perSecond === 0 ? "0" : threeDigits(perSecond)}/s` : UNKNOWN;
}

/** `48.2 °C`. */
export function temperature(celsius) {
  return known(celsius) ? `${celsius.toFixed(1)}${THIN}°C` : UNKNOWN;
}

/** `12,345`. */
export function count(number) {
  return known(number) ? Math.round(number).toLocaleString("en") : UNKNOWN;
}

/** `93 %`, of a share in 0..1; `99.6 %` near the ends, where a whole percent would say "all" or "none". */
export function percent(share, digits = null) {
  if (!known(share)) return UNKNOWN;
  const value = share * 100;
  if (digits !== null) return `${value.toFixed(digits)}${THIN}%`;
  const near = (value > 0 && value < 10) || (value > 99 && value < 100);
  return `${near ? value.toFixed(1) : Math.round(value)}${THIN}%`;
}

/** `4.0 MiB`. */
export function bytes(size) {
  if (!known(size)) return UNKNOWN;
  let value = size;
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (value < 999.5 || unit === "GiB") return `${unit === "B" ? value : threeDigits(value)}${THIN}${unit}`;
    value /= 1024;
  }
  return UNKNOWN;
}

/** `now`, `12 s`, `3 min`, `2 h`, `4 d`, of seconds. */
export function duration(seconds) {
  if (!known(seconds)) return UNKNOWN;
  if (seconds < 60) return `${Math.max(0, Math.floor(seconds))}${THIN}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}${THIN}min`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)}${THIN}h`;
  return `${Math.floor(seconds / 86400)}${THIN}d`;
}

/** `now`, `12 s ago`, `never`: when something was seen, both in Unix seconds. */
export function ago(then, now) {
  if (!known(then)) return "never";
  const age = now - then;
  // A board that speaks every few seconds is simply here: a text that changes every second would be noise.
  return age < 10 ? "now" : `${duration(age)} ago`;
}

/** `14:03:22` today, `12 Mar 14:03` before. */
export function clock(unix, now = Date.now() / 1000) {
  if (!known(unix)) return UNKNOWN;
  const date = new Date(unix * 1000);
  if (date.toDateString() === new Date(now * 1000).toDateString()) return date.toLocaleTimeString("en-GB");
  return date.toLocaleString("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
}

/** `2 boards`, `1 board`. */
export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/** The beginning of a digest, enough to tell bundles apart. */
export function shortDigest(digest) {
  return digest ? digest.replace(/^sha256:/, "").slice(0, 12) : UNKNOWN;
}
