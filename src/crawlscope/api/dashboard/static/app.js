// Times in the viewer's zone, the choice of colours, confirmations, keys. Pages are complete without it.
"use strict";

const ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone;
const ZONE_NAME = ZONE === "UTC" ? ZONE : `${ZONE}; hover for UTC`;
const THEMES = ["auto", "light", "dark"];
const two = (number) => String(number).padStart(2, "0");

function agoText(then) {
  const seconds = Math.max(0, Math.floor((Date.now() - then) / 1000));
  for (const [unit, length] of [["d", 86400], ["h", 3600], ["m", 60]]) {
    if (seconds >= length) return `${Math.floor(seconds / length).toLocaleString("en")}${unit} ago`;
  }
  return `${seconds}s ago`;
}

function localText(moment, form) {
  const clock = `${two(moment.getHours())}:${two(moment.getMinutes())}:${two(moment.getSeconds())}`;
  if (form === "clock") return clock;
  return `${moment.getFullYear()}-${two(moment.getMonth() + 1)}-${two(moment.getDate())} ${clock}`;
}

function showTimes(root) {
  for (const each of root.querySelectorAll("time[datetime]")) {
    const moment = new Date(each.dateTime);
    const text = each.dataset.form === "ago" ? agoText(moment) : localText(moment, each.dataset.form);
    if (each.textContent !== text) each.textContent = text;
  }
  for (const each of root.querySelectorAll("[data-zone]")) each.textContent = ZONE_NAME;
}

function setUpTheme(button) {
  let chosen = document.documentElement.dataset.theme ?? "auto";
  const name = () => {
    const words = { auto: "automatic", light: "light", dark: "dark" }[chosen];
    button.setAttribute("aria-label", `Colours: ${words}`);
    button.title = `Colours: ${words}`;
    button.textContent = { auto: "◐", light: "○", dark: "●" }[chosen];
  };
  name();
  button.addEventListener("click", () => {
    chosen = THEMES[(THEMES.indexOf(chosen) + 1) % THEMES.length];
    if (chosen === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = chosen;
    try { localStorage.setItem("theme", chosen); } catch { /* storage is switched off */ }
    name();
    document.dispatchEvent(new CustomEvent("theme-changed"));
  });
}

function showCurrentTab() {
  const tab = document.querySelector(".tabs [aria-current]");
  if (tab) tab.parentElement.scrollLeft = tab.offsetLeft + tab.offsetWidth / 2 - tab.parentElement.clientWidth / 2;
}

function setUp() {
  showCurrentTab();
  showTimes(document);
  setInterval(() => showTimes(document), 10000);
  for (const button of document.querySelectorAll("[data-theme-button]")) setUpTheme(button);
  for (const form of document.querySelectorAll("[data-submit-at-once]")) form.requestSubmit();
  document.addEventListener("submit", (event) => {
    const question = event.target.dataset?.confirm;
    if (question && !window.confirm(question)) event.preventDefault();
  });
  document.addEventListener("htmx:after:swap", () => showTimes(document));
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, textarea, select");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      const field = document.querySelector("main input[type=search]") ?? document.querySelector("[data-key='/']");
      if (field) { event.preventDefault(); field.focus(); field.select?.(); }
    }
    if (event.key === "Escape") for (const open of document.querySelectorAll("details.more[open]")) open.open = false;
  });
}

setUp();
