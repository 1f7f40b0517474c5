"use strict";

// Keeps the decisions about the files on the page, in memory and, where the browser allows it, from one visit to the
// next; writes them as the CSV file that `torchlight train --corrections` takes.

const RIGHT = "right", CHANGE = "change class", LEAVE_OUT = "leave out";
const entries = [...document.querySelectorAll("[data-file]")];
const classNames = [...document.querySelectorAll("#classes option")].map((option) => option.value);
const key = `torchlight check ${document.body.dataset.page}`;
const status = document.querySelector("#status");

function decisionOf(entry) {
  const { action } = entry.dataset;
  return { action, label: action === CHANGE ? entry.dataset.label : "" };
}

function decide(entry, action, label) {
  entry.dataset.action = action;
  entry.dataset.label = label;
  show(entry);
  tell();
  remember();
}

function show(entry) {
  for (const button of entry.querySelectorAll("button[data-action]")) {
    button.setAttribute("aria-pressed", String(button.dataset.action === entry.dataset.action));
  }
  const menu = entry.querySelector("select");
  if (menu && entry.dataset.action === CHANGE) menu.value = entry.dataset.label;
}

function tell() {
  const decided = entries.filter((entry) => entry.dataset.action).length;
  status.textContent = `${decided} of ${entries.length} decided`;
}

function remember() {
  const decisions = Object.fromEntries(entries.map((entry) => [entry.dataset.file, decisionOf(entry)]));
  try {
    localStorage.setItem(key, JSON.stringify(decisions));
  } catch {
    // A browser that keeps nothing: the decisions last as long as the page is open.
  }
}

function recall() {
  let decisions = {};
  try {
    decisions = JSON.parse(localStorage.getItem(key)) ?? {};
  } catch {
    return;
  }
  for (const entry of entries) {
    const known = decisions[entry.dataset.file];
    if (!known || (known.action === CHANGE && !classNames.includes(known.label))) continue;
    entry.dataset.action = known.action;
    entry.dataset.label = known.label;
  }
}

function quote(text) {
  return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function toCsv() {
  const rows = entries
    .filter((entry) => entry.dataset.action)
    .map((entry) => [entry.dataset.file, decisionOf(entry).action, decisionOf(entry).label, entry.dataset.why]);
  return "\ufeff" + [["file", "action", "class", "why"], ...rows].map((row) => row.map(quote).join(",") + "\n").join("");
}

function download() {
  const address = URL.createObjectURL(new Blob([toCsv()], { type: "text/csv" }));
  const link = document.createElement("a");
  link.href = address;
  link.download = "corrections.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

function fillMenu(menu) {
  const first = menu.options[0];
  menu.append(...classNames.filter((name) => name !== first.value).map((name) => new Option(name, name)));
}

document.querySelector("main").addEventListener("click", ({ target }) => {
  const button = target.closest("button[data-action]");
  if (!button) return;
  const entry = button.closest("[data-file]");
  const isPressed = button.getAttribute("aria-pressed") === "true";
  const menu = entry.querySelector("select");
  if (button.dataset.action === CHANGE && !menu.value) return menu.focus();
  decide(entry, isPressed ? "" : button.dataset.action, button.dataset.action === CHANGE ? menu.value : "");
});
document.querySelector("main").addEventListener("change", ({ target }) => {
  if (target.matches("select")) decide(target.closest("[data-file]"), target.value && CHANGE, target.value);
});
document.querySelector("#download").addEventListener("click", download);
document.querySelector("#clear").addEventListener("click", () => {
  if (!confirm("Clear all decisions?")) return;
  for (const entry of entries) decide(entry, "", "");
});

for (const menu of document.querySelectorAll("select")) fillMenu(menu);
recall();
entries.forEach(show);
tell();
document.querySelector("#decisions").hidden = false;
