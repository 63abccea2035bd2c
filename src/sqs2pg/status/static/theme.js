// Sets the colours before anything is drawn: those of the system, or the ones chosen on this page.
"use strict";
(() => {
  const root = document.documentElement;
  const order = ["auto", "light", "dark"];
  const read = () => {
    try { return order.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "auto"; }
    catch { return "auto"; }
  };
  const apply = (name) => {
    if (name === "auto") root.removeAttribute("data-theme");
    else root.dataset.theme = name;
  };
  let now = read();
  apply(now);
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    if (!button) return;
    const signs = { auto: "◐ auto", light: "☀ light", dark: "☾ dark" };
    const names = { auto: "same as the system", light: "light", dark: "dark" };
    const show = () => {
      button.textContent = signs[now];
      button.setAttribute("aria-label", `Colours: ${names[now]}`);
    };
    show();
    button.addEventListener("click", () => {
      now = order[(order.indexOf(now) + 1) % order.length];
      try { localStorage.setItem("theme", now); } catch { /* private mode: kept for this visit only */ }
      apply(now);
      show();
      document.dispatchEvent(new Event("themechange"));
    });
  });
})();
