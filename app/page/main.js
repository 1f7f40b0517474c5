/** Puts the page together: header, the view that the address names, and what all views share. */

import * as api from "./api.js";
import * as answer from "./answer.js";
import * as evidence from "./evidence.js";
import * as network from "./network.js";
import * as torch from "./torch.js";
import * as training from "./training.js";
import * as unit from "./unit.js";
import { paintPixels, picture } from "./drawing.js";
import { addressOf, button, choice, go, h, keep, percent, readState, recall, say } from "./page.js";
import { currentLanguage, LANGUAGES, NAMES, setLanguage, t } from "./words.js";

/**
 * @typedef {Object} App what is so for every picture: `model` as GET /v1/model, `layers` in the order they run, `byName`
 * @typedef {Object} Subject the picture looked into: `id`, `facts` as GET /v1/images/{id}, `predictions`, most probable
 *   first, `set`, the labels that hold the truth as often as promised, or null, and `pixels` (3, S, S) as the network
 *   gets them
 * @typedef {Object} Showing what a view gets: `app`, `state`, `subject` or null, `target`, the label of the class that is
 *   explained, and `signal`, aborted when the view is left
 *
 * A view is `show(host, showing)`; it may return `update(state)`, which says whether it followed a change by itself.
 */
const VIEWS = { answer, network, unit, torch, evidence, training };
const WITHOUT_PICTURE = new Set(["answer", "training"]);

/** @type {App} */
let app;
let shown = { view: "", update: null, leave: new AbortController() };

const header = document.getElementById("header");
const content = document.getElementById("content");

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
}

function drawHeader(state) {
  const place = state.window ? { y: null, x: null, window: null } : {}; // of the grey square: no other view has it
  const links = Object.keys(VIEWS).map((view, index) => {
    const isHere = view === state.view;
    const isOpen = WITHOUT_PICTURE.has(view) || Boolean(state.image);
    const inside = [h("span", { class: "step", "aria-hidden": "true" }, String(index + 1)), t(`view_${view}`)];
    if (!isOpen) return h("li", {}, h("span", { class: "tab off" }, inside));
    return h("li", {}, h("a", { class: "tab", href: addressOf({ view, ...place }), "aria-current": isHere ? "page" : null }, inside));
  });
  header.replaceChildren(
    h("a", { class: "brand", href: addressOf({ view: "answer" }) }, h("img", { src: "page/icon.svg", alt: "", width: 28, height: 28 }), "Torchlight"),
    h("nav", { "aria-label": t("views") }, h("ol", { class: "tabs" }, links)),
    h("div", { class: "settings" }, languages(), themes(), h("a", { class: "quiet", href: "docs" }, t("api"))),
  );
  document.getElementById("skip").textContent = t("skip");
  document.title = `${t(`view_${state.view}`)} · Torchlight`;
}

function languages() {
  const names = Object.keys(LANGUAGES);
  const other = names[(names.indexOf(currentLanguage()) + 1) % names.length];
  const change = () => {
    setLanguage(other);
    keep("localStorage", "torchlight-language", other);
    render({ again: true });
    document.getElementById("language").focus();
  };
  return h("button", { type: "button", id: "language", class: "quiet", lang: other, onclick: change }, NAMES[other]);
}

function themes() {
  const change = (event) => {
    setTheme(event.target.value);
    keep("localStorage", "torchlight-theme", event.target.value);
    render({ again: true }); // what is drawn on canvases has the colours of the page
    document.getElementById("theme").focus();
  };
  const options = ["auto", "light", "dark"].map((theme) =>
    h("option", { value: theme, selected: document.documentElement.dataset.theme === theme }, t(`theme_${theme}`)),
  );
  return h("select", { id: "theme", class: "quiet", "aria-label": t("theme"), onchange: change }, options);
}

/** @returns {Promise<Subject>} */
async function load(id) {
  const [facts, { predictions, unknown, set }, pixels] = await Promise.all([api.image(id), api.prediction(id), api.pixels(id)]);
  return { id, facts, predictions, unknown, set, pixels };
}

/** The strip that says on every page what is looked into, and for which class. */
function drawSubject(subject, target) {
  const [best] = subject.predictions;
  const size = app.model.preprocessing.size;
  const small = picture(t("what_it_sees_alt", { size }), (canvas) => paintPixels(canvas, subject.pixels.data, size, size), { class: "thumb" });
  const classes = subject.predictions.map(({ label, probability }) => [label, `${label} (${percent(probability)})`]);
  return h("div", { class: "subject" },
    small,
    h("p", {}, h("strong", {}, best.label), " ", h("span", { class: "number" }, percent(best.probability)), subject.unknown?.is_unknown && h("span", { class: "unlike" }, t("unknown_short"))),
    choice(t("explaining"), classes, target, (label) => go({ target: label === best.label ? null : label }), { id: "target" }),
  );
}

async function render({ again = false } = {}) {
  const state = readState();
  if (!(state.view in VIEWS)) return go({ view: "answer" }, { replace: true });
  drawHeader(state);
  if (!again && state.view === shown.view && state.image === shown.image && shown.update?.(state)) return undefined;
  const [isFirst, isAnother] = [shown.view === "", state.view !== shown.view];
  const [focused, scrolled] = [document.activeElement?.id, scrollY];
  shown.leave.abort();
  const leave = new AbortController();
  shown = { view: state.view, image: state.image, update: null, leave };
  if (isAnother) content.replaceChildren(h("p", { class: "waiting" }, t("loading")));
  try {
    await show(state, leave.signal);
  } catch (problem) {
    if (!leave.signal.aborted) fail(problem, state);
  }
  if (leave.signal.aborted) return undefined;
  if (isAnother) arrive(isFirst);
  else stay(focused, scrolled);
  return undefined;
}

async function show(state, signal) {
  app ??= await describeModel();
  const subject = state.image ? await load(state.image) : null;
  if (signal.aborted) return;
  if (!subject && !WITHOUT_PICTURE.has(state.view)) {
    content.replaceChildren(notice(t("no_image"), h("a", { href: addressOf({ view: "answer" }), class: "button" }, t("view_answer"))));
    return;
  }
  const isKnown = app.model.classes.includes(state.target);
  const target = isKnown ? state.target : subject?.predictions[0].label;
  const host = h("div", { class: `view view-${state.view}` });
  const strip = subject && state.view !== "answer" && state.view !== "training" ? drawSubject(subject, target) : null;
  const unknown = state.target && !isKnown ? notice(t("no_class", { name: state.target })) : null;
  content.replaceChildren(...[strip, unknown, host].filter(Boolean));
  const view = await VIEWS[state.view].show(host, { app, state, subject, target, signal });
  if (!signal.aborted) shown.update = view?.update ?? null;
}

async function describeModel() {
  const [model, { layers }] = await Promise.all([api.model(), api.layers()]);
  return { model, layers, byName: new Map(layers.map((layer) => [layer.name, layer])) };
}

/** Go to the heading of a view that was just opened, so that reading goes on there. */
function arrive(isFirst) {
  scrollTo(0, 0);
  const heading = content.querySelector("h1");
  heading?.setAttribute("tabindex", "-1");
  if (!isFirst) heading?.focus({ preventScroll: true });
}

/** Keep the place on a view that was drawn again. */
function stay(focused, scrolled) {
  scrollTo(0, scrolled);
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

function fail(problem, state) {
  const text = api.sentence(problem);
  if (problem.code === "unknown_image") {
    api.forget(state.image);
    content.replaceChildren(notice(t("image_gone"), h("a", { class: "button", href: "#/answer" }, t("view_answer"))));
  } else {
    content.replaceChildren(notice(text, button(t("try_again"), () => render({ again: true }))));
  }
}

function notice(text, ...more) {
  say(text);
  return h("div", { class: "notice" }, h("p", {}, text), more);
}

const language = recall("localStorage", "torchlight-language");
setLanguage(language in LANGUAGES ? language : navigator.language.startsWith("zh") ? "zh" : "en");
setTheme(recall("localStorage", "torchlight-theme") ?? "auto");
// What was asked for by hand, and not answered, is said above what is there.
addEventListener("unhandledrejection", (event) => {
  if (!(event.reason instanceof api.Problem)) return;
  event.preventDefault();
  content.querySelector(":scope > .failed")?.remove();
  content.prepend(h("div", { class: "failed" }, notice(api.sentence(event.reason))));
});
addEventListener("popstate", () => render());
addEventListener("statechange", () => render());
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address is the state of the page
  content.focus();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => render({ again: true }));
render();
