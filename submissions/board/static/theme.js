"use strict";
// Runs before the page is drawn, so that it does not flash in the other theme.
(() => {
  const root = document.documentElement;
  const key = "flowertune-theme";
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const kept = () => {
    try {
      const theme = localStorage.getItem(key);
      return theme === "dark" || theme === "light" ? theme : null;
    } catch {
      return null; // storage may be forbidden
    }
  };
  const keep = (theme) => {
    try {
      localStorage.setItem(key, theme);
    } catch {
      // It lasts for this page, then.
    }
  };
  const isDark = () =>
    root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches;
  if (kept()) root.dataset.theme = kept();

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const name = () => {
      button.textContent = isDark() ? "Light" : "Dark";
      button.setAttribute("aria-label", `Switch to the ${isDark() ? "light" : "dark"} theme`);
    };
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      keep(root.dataset.theme);
      name();
    });
    prefersDark.addEventListener("change", name);
    name();
    button.hidden = false;
  });
})();
