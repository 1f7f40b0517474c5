/**
 * What every view needs of the browser: making elements, writing numbers, speaking to screen readers, and the address.
 * Knows nothing of networks or of the API.
 */

const SVG = "http://www.w3.org/2000/svg";

/**
 * Make an HTML element.
 *
 * @param {string} tag
 * @param {Object<string, unknown>} attributes `onclick` and the like are listeners; null and false are left out.
 * @param {...(Node|string|number|null|Array)} children nested arrays are flattened, null is left out.
 */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Make an SVG element, as {@link h} does. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [property, text] of Object.entries(value)) element.style.setProperty(property, text);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/**
 * Write a number for people.
 *
 * @param {number|null} value null stands for what is not finite.
 * @param {number|"full"} digits after the point; "full" is all there are.
 */
export function written(value, digits = 4) {
  if (value === null || !Number.isFinite(value)) return value === Infinity ? "∞" : value === -Infinity ? "−∞" : "NaN";
  const tiny = value !== 0 && Math.abs(value) < 0.5 * 10 ** -digits;
  const text = digits === "full" ? String(value) : tiny ? value.toExponential(1) : value.toFixed(digits);
  return text.replaceAll("-", "−");
}

/** Write a number whose size alone matters, such as an error. */
export const scientific = (value) => (value ? value.toExponential(1).replaceAll("-", "−") : "0");

/** A number on the page; its exact value stays in the markup. */
export function num(value, digits = 4) {
  return h("data", { value: value }, written(value, digits));
}

/** Write a number again into an element that {@link num} made, if it is another one. */
export function renumber(element, value, digits = 4) {
  const exact = String(value);
  element.setAttribute("value", exact);
  element.textContent = written(value, digits);
}

export function percent(share) {
  const value = 100 * share;
  return `${value >= 99.95 && value < 100 ? "> 99.9" : value.toFixed(1)} %`;
}

/** A share as `part` of `whole`, in the smallest of a few round numbers: 9 of 10, 19 of 20, 97 of 100. */
export function shareOf(share) {
  const whole = [10, 20, 100].find((one) => Math.abs(share * one - Math.round(share * one)) < 1e-9) ?? 1000;
  return { part: Number((share * whole).toFixed(2)), whole };
}

/** What the browser remembers under a name; null if nothing, or if its user forbids it. */
export const recall = (storage, name) => attempt(() => window[storage].getItem(name));

/** Let the browser remember, as far as it may: what is full of earlier things is emptied. */
export function keep(storage, name, value) {
  const put = () => (window[storage].setItem(name, value), true);
  attempt(put) ?? attempt(() => (window[storage].clear(), put()));
}

function attempt(call) {
  try {
    return call();
  } catch {
    return null;
  }
}

/** Let a screen reader say something, without moving anything. */
export function say(text) {
  document.getElementById("live").textContent = text;
}

export const heading = (text) => h("h2", {}, text);
export const quiet = (...children) => h("p", { class: "quiet-text" }, ...children);
export const card = (id, ...children) => h("section", { class: "card", id }, ...children);

export const labelled = (label, input) => h("label", { class: "field" }, h("span", {}, label), input);
export const figure = (canvas, ...caption) => h("figure", {}, canvas, h("figcaption", {}, caption));

/** A button; `kind` is "primary", "small" or nothing. */
export const button = (text, onclick, kind = "", attributes = {}) =>
  h("button", { type: "button", class: `button ${kind}`, onclick, ...attributes }, text);

/** A strip filled up to a share; a signed one grows from its middle, to the left for what speaks against. */
export function track(share, { signed = false, delay = null, ghost = null } = {}) {
  const width = `${(signed ? 50 : 100) * Math.min(1, Math.abs(share))}%`;
  const kind = `${signed && share < 0 ? "against" : ""} ${delay === null ? "" : "grow"}`;
  return h("span", { class: signed ? "track signed" : "track", "aria-hidden": "true" }, ghost, h("span", { class: kind, style: { width, "--delay": `${delay}ms` } }));
}

/** What a row of bars consists of: a name, its share as a strip, and in numbers. */
export const shareBar = (label, share, ghost = null) => [h("span", { class: "bar-label" }, label), track(share, { ghost }), h("data", { class: "bar-share", value: share }, percent(share))];

/** The positions of the `count` numbers that are largest in size, the largest first. */
export const strongest = (values, count) =>
  Array.from(values.keys()).sort((one, other) => Math.abs(values[other]) - Math.abs(values[one]) || one - other).slice(0, count);

/** A whole number from an address or a field, if it is one below `count`; else `other`. */
export const indexOr = (value, count, other) => (Number.isInteger(value) && value >= 0 && value < count ? value : other);

/** A labelled choice. `options` are pairs of value and text. */
export function choice(label, options, chosen, onchange, attributes = {}) {
  const select = h("select", { ...attributes, onchange: () => onchange(select.value) },
    options.map(([value, text]) => h("option", { value, selected: String(value) === String(chosen) }, text)),
  );
  return labelled(label, select);
}

/** Buttons of which one is pressed. */
export function switcher(label, options, chosen, onchange) {
  const buttons = options.map(([value, text]) =>
    h("button", { type: "button", "aria-pressed": String(String(value) === String(chosen)), onclick: () => choose(value) }, text),
  );
  const choose = (value) => {
    options.forEach(([one], index) => buttons[index].setAttribute("aria-pressed", String(one === value)));
    onchange(value);
  };
  return h("div", { class: "field" }, h("span", {}, label), h("div", { class: "switcher", role: "group", "aria-label": label }, buttons));
}

/** The cell (y, x) of a grid drawn on an element that the pointer is over, the nearest one if it has left. */
export function cellUnder(event, element, rows, columns) {
  const box = element.getBoundingClientRect();
  const place = (at, side, count) => Math.min(count - 1, Math.max(0, Math.floor((at / side) * count)));
  return [place(event.clientY - box.top, box.height, rows), place(event.clientX - box.left, box.width, columns)];
}

/** The step (y, x) that an arrow key stands for; undefined for other keys. */
export const arrow = ({ key }) => ({ ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] })[key];

/** Call the last of many calls, once there was none for a while. */
export function atRest(delayMs, call) {
  let timer = 0;
  const later = (...given) => {
    clearTimeout(timer);
    timer = setTimeout(call, delayMs, ...given);
  };
  later.cancel = () => clearTimeout(timer);
  return later;
}

/**
 * @typedef {Object} State what the page shows, as in its address: `view`, and, where they apply, `image`, the id of a
 *   stored one, `layer`, `channel`, `y`, `x`, `target` and `versus`, labels of the class explained and its rival
 */
const NUMBERS = new Set(["channel", "y", "x", "opacity", "window", "limit"]);

/** @returns {State} */
export function readState(fragment = location.hash) {
  const [, view, query] = /^#\/?([a-z]*)\??(.*)$/.exec(fragment) ?? ["", "", ""];
  const state = { view: view || "answer" };
  for (const [name, text] of new URLSearchParams(query)) {
    if (!NUMBERS.has(name)) state[name] = text;
    else if (text !== "" && Number.isFinite(Number(text))) state[name] = Number(text);
  }
  return state;
}

/** The address of the present state with some of it changed; null takes a part away. */
export function addressOf(changes, state = readState()) {
  const { view, ...rest } = { ...state, ...changes };
  const parts = Object.entries(rest).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const query = new URLSearchParams(parts).toString().replaceAll("%3A", ":").replaceAll("%2C", ",");
  return `#/${view}${query && `?${query}`}`;
}

/** Go to another state: a new entry in the history, or with `replace` in place of this one. */
export function go(changes, { replace = false, quiet = false } = {}) {
  const address = addressOf(changes);
  if (address === location.hash) return;
  history[replace ? "replaceState" : "pushState"](null, "", address);
  if (!quiet) window.dispatchEvent(new Event("statechange"));
}
