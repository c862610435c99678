/*
 * Before anything is painted: the colours that were chosen last, and the stream, so that the server gathers the fleet while
 * the modules load. A classic script, because modules wait for the document; feed.js takes the stream over.
 */
(function () {
  try {
    var chosen = localStorage.getItem("theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch (_storageIsOff) {
    /* The system's colours, then. */
  }
  var board = /^#\/boards\/([^/?]+)/.exec(location.hash);
  var early = { board: null, heard: [], source: null };
  try {
    early.board = board ? decodeURIComponent(board[1]) : null;
  } catch (_noName) {
    /* The router says so. */
  }
  early.source = new EventSource("api/stream" + (early.board === null ? "" : "?board=" + encodeURIComponent(early.board)));
  ["fleet", "tiles", "rollouts", "source", "board"].forEach(function (name) {
    early.source.addEventListener(name, function (event) {
      if (early.heard !== null) early.heard.push(event);
    });
  });
  window.early = early;
})();
