/** Why this class: methods side by side, how far they add up, and a square to hide parts of the picture with. */

import * as api from "./api.js";
import { legend, limitOf, paintMap, paintPixels, picture, rangeOf } from "./drawing.js";
import { arrow, button, card, choice, go, h, heading, labelled, num, percent, quiet, say, shareBar, switcher, written } from "./page.js";
import { rich, t, withNodes } from "./words.js";

const METHODS = ["grad_cam", "hires_cam", "saliency", "input_x_gradient", "integrated_gradients", "occlusion"];
const SIDE = 288; // pixels of an overlay
const DEAR = 1e11; // multiply-adds above which a method waits to be asked for
const PASSES = { integrated_gradients: 64 * 3, occlusion: 200 }; // forward passes, a backward one counted as two
const SHOWN = 6; // classes beside the square

export async function show(host, showing) {
  const view = new Evidence(showing);
  host.append(...view.elements());
  await view.load();
}

class Evidence {
  constructor({ app, state, subject, target, signal }) {
    Object.assign(this, { app, state, subject, target, signal });
    this.versus = app.model.classes.includes(state.versus) && state.versus !== target ? state.versus : null;
    this.size = app.model.preprocessing.size;
    this.photo = paintPixels(document.createElement("canvas"), subject.pixels.data, this.size, this.size);
    this.opacity = state.opacity ?? 60;
    this.isSmooth = state.cells === "smooth";
    this.cards = METHODS.map((method) => ({ method, element: h("section", { class: "card method", id: `method-${method}` }), found: null }));
  }

  elements() {
    const { predictions } = this.subject;
    const classes = predictions.map(({ label, probability }) => [label, `${label} (${percent(probability)})`]);
    const best = predictions[0].label;
    const slider = h("input", { type: "range", id: "opacity", min: 0, max: 100, value: this.opacity, oninput: () => ((this.opacity = Number(slider.value)), this.repaint()), onchange: () => go({ opacity: this.opacity }, { replace: true, quiet: true }) });
    const smooth = (value) => {
      this.isSmooth = value === "smooth";
      go({ cells: this.isSmooth ? "smooth" : null }, { replace: true, quiet: true });
      this.repaint();
    };
    return [
      h("h1", {}, t("evidence_title")),
      h("p", { class: "guide" }, rich("evidence_guide")),
      h("div", { class: "controls" },
        choice(t("why_class"), classes, this.target, (label) => go({ target: label === best ? null : label }), { id: "why" }),
        choice(t("rather_than"), [["", t("nothing_else")], ...classes.filter(([label]) => label !== this.target)], this.versus ?? "", (label) => go({ versus: label || null }), { id: "versus" }),
        labelled(t("opacity"), slider),
        switcher(t("smooth"), [["native", t("smooth_no")], ["smooth", t("smooth_yes")]], this.isSmooth ? "smooth" : "native", smooth),
        h("div", { class: "legend-holder" }, legend({ signed: true, low: t("legend_against", { label: this.target }), high: t("legend_for", { label: this.target }) })),
      ),
      h("div", { class: "methods" }, this.cards.map(({ element }) => element)),
      card("hide", new Square(this).elements()),
    ];
  }

  async load() {
    await Promise.all(this.cards.map((card) => {
      const cost = this.app.model.multiply_adds * (PASSES[card.method] ?? 3);
      return cost > DEAR ? this.offer(card) : this.compute(card);
    }));
  }

  head({ method }) {
    return [heading(t(`method_${method}`)), quiet(t(`about_${method}`))];
  }

  offer(card) {
    card.element.replaceChildren(...this.head(card), h("div", {}, button(t("compute"), () => this.compute(card))), quiet(t("compute_note")));
  }

  async compute(card) {
    card.element.replaceChildren(...this.head(card), h("p", { class: "waiting" }, t("computing")));
    try {
      card.found = await api.evidence(this.subject.id, card.method, { target: this.target, target_vs: this.versus });
      if (!this.signal.aborted) this.draw(card);
    } catch (problem) {
      card.element.replaceChildren(...this.head(card), h("div", {}, button(t("try_again"), () => this.compute(card), "small")), quiet(api.sentence(problem)));
    }
  }

  draw(card) {
    const { found, method, element } = card;
    const [height, width] = [found.map.length, found.map[0].length];
    card.values = Float64Array.from(found.map.flat(), (value) => value ?? NaN);
    const [low, high] = rangeOf(card.values);
    const at = card.values.indexOf(high);
    const words = { method: t(`method_${method}`), label: this.target, y: Math.floor(at / width), x: at % width, height, width, value: written(high, 3), against: written(Math.min(0, low), 3) };
    card.canvas = picture(t("evidence_alt", words), () => {}, { class: "overlay" });
    element.replaceChildren(
      ...this.head(card),
      card.canvas,
      h("div", { class: "account" }, quiet(t("cells", { height, width, low: written(low, 3), high: written(high, 3) })), high <= 0 && h("p", { class: "flag" }, t("no_positive")), account(found)),
    );
    this.paint(card);
  }

  repaint() {
    this.cards.filter(({ found }) => found).forEach((card) => this.paint(card));
  }

  /** The picture in grey, each cell's colour over it at the same strength everywhere. */
  paint({ canvas, found, values }) {
    const [height, width] = [found.map.length, found.map[0].length];
    const limit = limitOf(values);
    const zoom = Math.max(1, Math.floor(SIDE / this.size));
    const side = zoom * this.size;
    canvas.width = side;
    canvas.height = side;
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.filter = "grayscale(1)";
    context.drawImage(this.photo, 0, 0, side, side);
    context.filter = "none";
    context.globalAlpha = this.opacity / 100;
    const { start, jump } = found.layer === "input" ? { start: [0, 0], jump: [1, 1] } : this.app.byName.get(found.layer).receptive_field ?? { start: [0, 0], jump: [this.size / height, this.size / width] };
    const step = jump.map((pixels) => pixels || this.size);
    const cells = document.createElement("canvas");
    paintMap(cells, values, height, width, { limit, signed: true });
    context.imageSmoothingEnabled = this.isSmooth;
    const edge = (axis) => (start[axis] + 0.5 - step[axis] / 2) * zoom;
    context.drawImage(cells, edge(1), edge(0), width * step[1] * zoom, height * step[0] * zoom);
    context.globalAlpha = 1;
  }

}

/** Whether the cells and the bias give the logit, as a bar and in numbers. */
function account({ map, sum, bias, logit, residual, law }) {
  if (bias === null) return quiet(t("law_none", { logit: written(logit, 3) }));
  let [positive, negative] = [0, 0];
  for (const value of map.flat()) value > 0 ? (positive += value) : (negative += value ?? NaN);
  const ends = [0, positive, positive + negative, positive + negative + bias, logit];
  const [low, high] = [Math.min(...ends), Math.max(...ends)];
  const length = (value) => `${(100 * value) / (high - low || 1)}%`;
  const piece = (kind, from, to) => h("span", { class: `piece ${kind}`, style: { left: length(Math.min(from, to) - low), width: length(Math.abs(to - from)) } });
  const words = { positive: written(positive, 3), negative: written(negative, 3), bias: written(bias, 3), logit: written(logit, 3) };
  return [
    h("h3", {}, t("adds_up")),
    h("div", { class: "pieces", role: "img", "aria-label": t("adds_up_alt", words) }, piece("for", 0, positive), piece("against", positive, positive + negative), piece("bias", positive + negative, positive + negative + bias), h("span", { class: "needle", style: { left: length(logit - low) } })),
    h("p", { class: "reading" }, withNodes("adds_up_yes", { sum: num(sum), bias: num(bias), total: num(sum + bias), logit: num(logit), residual: num(residual) })),
    h("p", { class: "quiet-text", lang: "en" }, law),
  ];
}

class Square {
  constructor({ app, subject, target, state, signal, size, photo }) {
    Object.assign(this, { subject, target, signal, size, small: photo });
    this.side = Math.round(Math.min(size, Math.max(1, state.window ?? size / 4)));
    const isPlaced = state.window && Number.isInteger(state.y) && Number.isInteger(state.x); // else it is the torch that was there
    Object.assign(this, isPlaced ? this.inside(state.y, state.x) : { y: null, x: null });
    this.isAsking = false;
    const { mean } = app.model.preprocessing;
    this.grey = `rgb(${mean.map((value) => Math.round(255 * value)).join(" ")})`;
  }

  elements() {
    const { size } = this;
    const zoom = Math.max(1, Math.floor(384 / size));
    this.canvas = h("canvas", { id: "hide-canvas", class: "pixels drag", tabindex: "0", role: "application", width: size * zoom, height: size * zoom, onpointerdown: (event) => this.drag(event), onpointermove: (event) => event.buttons && this.drag(event), onkeydown: (event) => this.press(event) });
    this.zoom = zoom;
    this.place = h("p", { class: "reading", id: "hide-place" }, t("without"));
    const slider = h("input", { type: "range", id: "window", min: 1, max: Math.max(1, Math.floor(size * 0.75)), value: this.side, oninput: () => this.resize(Number(slider.value)) });
    this.bars = h("ol", { class: "bars", id: "hide-bars" });
    this.follow(null);
    this.paint();
    if (this.y !== null && this.x !== null) this.ask();
    return [
      heading(t("hide_title")),
      quiet(t("hide_guide")),
      h("div", { class: "hide-grid" }, h("div", {}, this.canvas, this.place, labelled(t("hide_size"), slider)), this.bars),
    ];
  }

  drag(event) {
    event.preventDefault();
    this.canvas.focus();
    const box = this.canvas.getBoundingClientRect();
    const at = (position, length) => Math.round((position / length) * this.size - this.side / 2);
    this.move(at(event.clientY - box.top, box.height), at(event.clientX - box.left, box.width));
  }

  press(event) {
    const by = arrow(event);
    if (!by) return;
    event.preventDefault();
    const step = Math.max(1, Math.round(this.size / 32));
    const middle = Math.round((this.size - this.side) / 2);
    this.move((this.y ?? middle) + by[0] * step, (this.x ?? middle) + by[1] * step);
  }

  resize(side) {
    this.side = side;
    this.y === null ? this.paint() : this.move(this.y, this.x);
  }

  /** The nearest place where some of the square is over the picture. */
  inside(y, x) {
    const limit = (value) => Math.min(this.size - 1, Math.max(1 - this.side, value));
    return { y: limit(y), x: limit(x) };
  }

  move(y, x) {
    Object.assign(this, this.inside(y, x));
    this.paint();
    this.ask();
  }

  paint() {
    const { zoom, size, side } = this;
    const context = this.canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(this.small, 0, 0, size * zoom, size * zoom);
    const middle = Math.round((size - side) / 2);
    const [y, x] = [this.y ?? middle, this.x ?? middle];
    this.canvas.setAttribute("aria-label", t("hide_label", { y, x }));
    context.fillStyle = this.grey;
    context.globalAlpha = this.y === null ? 0.35 : 1;
    context.fillRect(x * zoom, y * zoom, side * zoom, side * zoom);
    context.globalAlpha = 1;
    for (const [ink, dash] of [["#ffffff", []], ["#14161a", [6, 4]]]) {
      context.strokeStyle = ink;
      context.setLineDash(dash);
      context.strokeRect(x * zoom + 0.5, y * zoom + 0.5, side * zoom - 1, side * zoom - 1);
    }
  }

  /** Ask for the place where the square is; while an answer is awaited only the latest place counts. */
  async ask() {
    if (this.isAsking) return;
    this.isAsking = true;
    try {
      for (let asked = ""; asked !== this.key() && !this.signal.aborted; ) {
        asked = this.key();
        const found = await api.occlusion(this.subject.id, { y: this.y, x: this.x, window: this.side });
        if (!this.signal.aborted) this.follow(found);
      }
      if (!this.signal.aborted) this.rest();
    } catch (problem) {
      this.place.textContent = api.sentence(problem);
    } finally {
      this.isAsking = false;
    }
  }

  key() {
    return [this.y, this.x, this.side].join();
  }

  rest() {
    go({ y: this.y, x: this.x, window: this.side }, { replace: true, quiet: true });
    say(`${this.place.textContent}. ${this.bars.textContent}`);
  }

  /** Draw the bars: solid with the square there, an outline without it. */
  follow(found) {
    const plain = this.subject.predictions;
    const labels = plain.slice(0, SHOWN).map(({ label }) => label);
    for (const label of [this.target, found?.predictions[0].label]) if (label && !labels.includes(label)) labels.push(label);
    if (found) this.place.textContent = t("hidden_at", { side: found.window, y: found.y, x: found.x });
    this.bars.replaceChildren(...labels.map((label) => {
      const before = plain.find((one) => one.label === label).probability;
      const now = found?.predictions.find((one) => one.label === label) ?? { probability: before, difference: 0 };
      const change = `${now.difference < 0 ? "−" : "+"}${Math.abs(100 * now.difference).toFixed(1)}`;
      return h("li", { class: label === this.target ? "bar still target" : "bar still" },
        shareBar(label, now.probability, h("span", { class: "ghost", style: { width: `${100 * before}%` } })),
        h("span", { class: now.difference < 0 ? "bar-change against" : "bar-change for" }, found ? change : ""),
      );
    }));
  }
}
