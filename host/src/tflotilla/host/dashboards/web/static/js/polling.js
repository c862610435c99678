/**
 * What the stream doesn't carry: fetched when a page opens, and again every few seconds while somebody can see it.
 *
 * Rules: one request at a time; after a failure the old figures stay, with the reason above them; a page that was left is
 * never called again. Returns {stop(), now()}.
 */
export function poll(app, path, everyMs, onDocument, onProblem) {
  let [stopped, running] = [false, false];

  async function fetchOnce() {
    if (running || stopped || document.hidden) return;
    running = true;
    try {
      const document_ = await app.get(path());
      if (stopped) return;
      onProblem("");
      onDocument(document_);
    } catch (error) {
      if (!stopped) onProblem(error.message);
    } finally {
      running = false;
    }
  }

  const timer = setInterval(() => void fetchOnce(), everyMs);
  const onVisible = () => void fetchOnce();
  document.addEventListener("visibilitychange", onVisible);
  void fetchOnce();
  return {
    now: () => void fetchOnce(),
    stop() {
      stopped = true;
      clearInterval(timer);
      document.removeEventListener("visibilitychange", onVisible);
    },
  };
}
