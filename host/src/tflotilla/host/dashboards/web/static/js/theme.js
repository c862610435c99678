/* Before anything is painted: the colours that were chosen last. A classic script, because modules wait for the document. */
(function () {
  try {
    var chosen = localStorage.getItem("theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch (_storageIsOff) {
    /* The system's colours, then. */
  }
})();
