// Before anything is painted: the theme that was chosen here, if any. Without a choice the system's is shown.
(function () {
  "use strict";
  try {
    var chosen = localStorage.getItem("serving-theme");
    if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
  } catch (error) {
    // storage is forbidden: then nothing is remembered
  }
})();
