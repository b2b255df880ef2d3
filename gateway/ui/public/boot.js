// Chooses the theme before anything is painted, so that no page flashes in the wrong colours.
(function () {
  var theme = null;
  try {
    theme = localStorage.getItem("sg.theme");
  } catch (e) {
    // Storage may be forbidden; the system's theme is used then.
  }
  if (theme === "light" || theme === "dark") document.documentElement.setAttribute("data-theme", theme);
})();
