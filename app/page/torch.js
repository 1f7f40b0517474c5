/** How one number of a layer comes about: a window sweeps over what the layer reads, like the light of a torch. */

import * as api from "./api.js";
import { averagePool, batchNorm, clip, convolution, followers, hasPlaces, kindOf, maxPool, mostActive, normalise, peakOf, seenBy } from "./arithmetic.js";
import { channelOf, colourOf, COLOURS, drawGrid, inks, isSigned, limitOf, paintMap, paintPixels, picture, rangeOf, sharpen } from "./drawing.js";
import { layerOr } from "./network.js";
import { addressOf, arrow, atRest, button, card, cellUnder, go, h, heading, indexOr, labelled, num, percent, quiet, renumber, say, scientific, strongest, svg, switcher, track, written } from "./page.js";
import { choosers } from "./unit.js";
import { rich, t } from "./words.js";

const REST_MS = 220; // without a move: then the service is asked to check
const STEP_MS = 130; // of the sweep that plays by itself
const ROWS = 4; // input channels that are shown number by number
const SIGN = 18; // pixels between two grids of numbers
const TERMS = 12; // inputs of a fully connected layer that are shown
const SWEPT = new Set(["convolution", "batch_norm", "activation", "max_pool", "average_pool", "sum", "product"]);

export async function show(host, showing) {
  const { app, state, subject, signal } = showing;
  const last = app.layers.at(-1);
  const softmax = { ...last, name: "softmax", type: "softmax", inputs: [last.name], in_shapes: [last.out_shape], views: ["trace"] };
  const layers = [...app.layers.filter((one) => one.views.includes("trace")), softmax];
  const layer = state.layer === "softmax" ? softmax : layerOr({ ...app, layers }, state.layer, (one) => one.views.includes("trace"));
  const isSwept = SWEPT.has(kindOf(layer)) && hasPlaces(layer) && layer.in_shapes.every((shape) => shape.length === 3);
  const maps = isSwept ? await api.mapsOf(subject.id, layer.name) : null;
  if (signal.aborted) return null;
  const names = layer === last || layer === softmax ? app.model.classes : null;
  const likely = names ? names.indexOf(showing.target) : maps ? mostActive(maps)[0] : 0;
  const channel = indexOr(state.channel, layer.out_shape[0], likely);
  const controls = h("div", { class: "controls" }, choosers(layers, layer, channel, names));
  host.append(h("h1", {}, t("torch_title")), h("p", { class: "guide" }, rich(`torch_guide_${kindOf(layer)}`)), controls);
  if (isSwept) {
    const sweep = new Sweep({ ...showing, layer, channel, maps });
    await sweep.prepare();
    if (signal.aborted) return null;
    sweep.start(host, controls);
    return { update: (next) => sweep.follow(next) };
  }
  go({ layer: layer.name, channel }, { replace: true, quiet: true });
  await new Still({ ...showing, layer, channel }).draw(host, controls);
  return null;
}

/** The line that compares our own sum with the network's number. */
class Check {
  constructor() {
    Object.assign(this, { ours: num(0, 8), theirs: num(0, 8), difference: num(0, 8), verdict: h("span", { class: "verdict", id: "verdict" }) });
    this.ours.id = "ours";
    this.theirs.id = "theirs";
    this.difference.id = "difference";
    const part = (name, value) => h("span", { class: "check-part" }, t(name), " ", value);
    this.element = h("p", { class: "check-line" }, part("our_sum", this.ours), part("framework", this.theirs), part("difference", this.difference), this.verdict);
  }

  /** While the torch moves: our sum, if this page can tell it, and the network's number out of its map. */
  move(ours, theirs) {
    this.write(ours ?? NaN, theirs, ours === null ? NaN : ours - theirs);
    if (ours === null) [this.ours, this.difference].forEach((one) => (one.textContent = "…"));
    this.verdict.textContent = t("moving");
    this.verdict.className = "verdict";
  }

  /** What the service says of the same number. */
  settle({ total, framework, difference, bound, holds }) {
    this.write(total, framework, difference);
    const words = !holds ? "not_verified" : difference === 0 ? "verified_exactly" : "verified";
    this.verdict.textContent = `${holds ? "✓" : "✗"} ${t(words, { bound: scientific(bound) })}`;
    this.verdict.className = holds ? "verdict good" : "verdict bad";
  }

  fail(sentence) {
    this.verdict.textContent = sentence;
    this.verdict.className = "verdict bad";
  }

  write(ours, theirs, difference) {
    renumber(this.ours, ours, 8);
    renumber(this.theirs, theirs, 8);
    this.difference.value = String(difference);
    this.difference.textContent = scientific(difference);
  }
}

class Sweep {
  constructor({ app, state, subject, signal, layer, channel, maps }) {
    Object.assign(this, { app, subject, signal, layer, channel, maps, state });
    this.size = app.model.preprocessing.size;
    [, this.height, this.width] = maps.shape;
    this.values = channelOf(maps, channel);
    const peak = peakOf(this.values);
    this.y = indexOr(state.y, this.height, Math.floor(peak / this.width));
    this.x = indexOr(state.x, this.width, peak % this.width);
    this.digits = 2;
    this.rest = atRest(REST_MS, () => this.settle());
  }

  /** Fetch once all that is needed to move without a request. */
  async prepare() {
    const { layer, subject, app } = this;
    this.inputs = await Promise.all(layer.inputs.map((name) => (name === "input" ? normalise(subject.pixels, app.model.preprocessing) : api.mapsOf(subject.id, name))));
    const panels = { convolution: ConvolutionPanel, batch_norm: BatchNormPanel, activation: ActivationPanel, max_pool: PoolPanel, average_pool: PoolPanel, sum: BranchesPanel, product: BranchesPanel };
    this.panel = new panels[kindOf(layer)](this);
    await this.panel.prepare?.();
  }

  start(host, controls) {
    go({ layer: this.layer.name, channel: this.channel, y: this.y, x: this.x }, { replace: true, quiet: true });
    this.check = new Check();
    const [stage, tools] = [this.drawStage(), this.drawTools()];
    controls.append(...tools);
    const detail = this.panel.element();
    host.append(h("div", { class: "torch-grid" }, h("div", {}, stage, this.panel.result?.(), this.check.element, this.numbers()), detail));
    this.resize();
    this.settle();
    addEventListener("resize", () => this.resize(), { signal: this.signal });
    this.signal.addEventListener("abort", () => (this.rest.cancel(), clearInterval(this.playing)));
  }

  drawStage() {
    const { layer, channel } = this;
    this.photo = h("canvas", { id: "torch-photo", role: "img", "aria-label": t("what_it_sees", { size: this.size }) });
    this.photoText = h("figcaption", { id: "torch-photo-text" });
    this.map = h("canvas", {
      id: "torch-map", tabindex: "0", role: "application", "aria-label": t("torch_map", { layer: layer.name, channel }),
      onpointermove: (event) => this.point(event), onpointerdown: (event) => this.point(event), onkeydown: (event) => this.press(event),
    });
    this.mapText = h("figcaption", { id: "torch-map-text" }, h("span", {}), " ", num(0, 5));
    this.beam = svg("svg", { class: "torch-beam", "aria-hidden": "true" }, svg("polygon", {}));
    this.photoPixels = paintPixels(document.createElement("canvas"), this.subject.pixels.data, this.size, this.size);
    this.mapPixels = paintMap(document.createElement("canvas"), this.values, this.height, this.width, { signed: isSigned(this.maps.data) });
    this.stage = h("div", { class: "torch-stage" }, h("figure", {}, this.photo, this.photoText), h("figure", {}, this.map, this.mapText), this.beam);
    return this.stage;
  }

  drawTools() {
    const place = (name, label, limit) => {
      const change = () => {
        this.moveTo({ [name]: Math.min(limit - 1, Math.max(0, Math.round(Number(field.value)))) });
        field.value = this[name];
      };
      const field = h("input", { type: "number", id: name, min: 0, max: limit - 1, onchange: change });
      this[`${name}Field`] = field;
      return labelled(t(label), field);
    };
    this.playButton = button(`▶ ${t("play")}`, () => this.play(), "", { id: "play" });
    const digits = [["2", "2"], ["4", "4"], ["full", t("digits_full")]];
    return [
      place("y", "row", this.height),
      place("x", "column", this.width),
      this.playButton,
      this.panel.hasDigits && switcher(t("digits"), digits, "2", (value) => ((this.digits = value === "full" ? "full" : Number(value)), this.redraw())),
      this.panel.rows && button(t("export"), () => this.export(), "", { id: "export" }),
    ].filter(Boolean);
  }

  point(event) {
    const [y, x] = cellUnder(event, this.map, this.height, this.width);
    this.moveTo({ y, x });
  }

  press(event) {
    if (event.key === " ") this.play();
    const by = arrow(event);
    const end = { Home: { x: 0 }, End: { x: this.width - 1 } }[event.key];
    const to = by ? { y: this.y + by[0], x: this.x + by[1] } : end;
    if (to) this.moveTo(to);
    if (to || event.key === " ") event.preventDefault();
  }

  moveTo({ y = this.y, x = this.x }) {
    if (y < 0 || x < 0 || y >= this.height || x >= this.width || (y === this.y && x === this.x)) return;
    Object.assign(this, { y, x });
    this.redraw();
  }

  play() {
    const isPlaying = Boolean(this.playing);
    clearInterval(this.playing);
    this.playing = 0;
    if (!isPlaying) {
      this.playing = setInterval(() => {
        const next = (this.y * this.width + this.x + 1) % (this.height * this.width);
        this.moveTo({ y: Math.floor(next / this.width), x: next % this.width });
        if (next === this.height * this.width - 1) this.play();
      }, STEP_MS);
    }
    this.playButton.textContent = isPlaying ? `▶ ${t("play")}` : `❚❚ ${t("pause")}`;
  }

  follow(state) {
    const isSame = state.layer === this.layer.name && state.channel === this.channel && ["target", "image"].every((name) => state[name] === this.state[name]);
    if (!isSame) return false;
    this.moveTo(state);
    return true;
  }

  /** The torch rests: remember where, and let the service check. */
  async settle() {
    this.rest.cancel();
    const { y, x } = this;
    go({ y, x }, { replace: true, quiet: true });
    this.redrawTable();
    try {
      const found = await api.trace(this.subject.id, this.layer.name, this.channel, y, x);
      if (this.signal.aborted || y !== this.y || x !== this.x) return;
      this.found = found;
      this.showFound();
      if (document.activeElement === this.map) say(t("now_at", { y, x, value: written(found.framework, 4) }));
    } catch (problem) {
      const sentence = api.sentence(problem);
      if (y === this.y && x === this.x) this.check.fail(sentence);
    }
  }

  showFound() {
    this.check.settle(this.found);
    this.panel.settle?.(this.found);
  }

  /** Measure what only changes with the window, then draw. */
  resize() {
    this.inks = inks();
    const [photoFigure, mapFigure] = this.stage.querySelectorAll("figure");
    const side = Math.floor(Math.min(photoFigure.clientWidth, 400));
    this.photoSide = side;
    this.mapSide = Math.floor(Math.min(mapFigure.clientWidth, 400));
    this.photoContext = sharpen(this.photo, side, side);
    const cell = this.mapSide / Math.max(this.height, this.width);
    this.mapContext = sharpen(this.map, this.width * cell, this.height * cell);
    this.mapCell = cell;
    this.panel.resize?.();
    const [stage, photo, map] = [this.stage, this.photo, this.map].map((one) => one.getBoundingClientRect());
    this.offsets = { photo: [photo.left - stage.left, photo.top - stage.top], map: [map.left - stage.left, map.top - stage.top], isBelow: map.top >= photo.bottom };
    this.beam.setAttribute("viewBox", `0 0 ${stage.width} ${stage.height}`);
    this.redraw();
  }

  /** All that a move changes; no request, no layout. What the service said of this place holds, else it is asked at rest. */
  redraw() {
    const { y, x, layer } = this;
    const theirs = this.values[y * this.width + x];
    const field = layer.receptive_field;
    const box = field && clip(seenBy(field, y, x), this.size);
    this.drawPhoto(box);
    this.drawMap();
    this.drawBeam(box);
    const ours = this.panel.draw(y, x);
    this.check.move(ours, theirs);
    this.photoText.textContent = !field ? t("torch_no_place") : !box ? t("torch_unlit") : t("torch_photo", box);
    this.mapText.firstChild.textContent = t("torch_map_caption", { layer: layer.name, channel: this.channel, y, x });
    renumber(this.mapText.lastChild, theirs, 5);
    this.yField.value = y;
    this.xField.value = x;
    if (this.found?.y === y && this.found?.x === x) {
      this.rest.cancel();
      this.showFound();
    } else this.rest();
  }

  drawPhoto(box) {
    const { photoContext: context, photoSide: side } = this;
    context.imageSmoothingEnabled = false;
    context.drawImage(this.photoPixels, 0, 0, side, side);
    if (!this.layer.receptive_field) return;
    const zoom = side / this.size;
    const [left, top, right, bottom] = box ? [box.left * zoom, box.top * zoom, (box.right + 1) * zoom, (box.bottom + 1) * zoom] : [0, 0, 0, 0];
    context.fillStyle = "rgb(8 9 14 / 0.72)";
    context.beginPath();
    context.rect(0, 0, side, side);
    context.rect(left, top, right - left, bottom - top);
    context.fill("evenodd");
    this.lit = box && { left, top, right, bottom };
    frame(context, left, top, right - left, bottom - top, this.inks.glow);
  }

  drawMap() {
    const { mapContext: context, mapCell: cell } = this;
    context.imageSmoothingEnabled = false;
    context.drawImage(this.mapPixels, 0, 0, this.width * cell, this.height * cell);
    frame(context, this.x * cell, this.y * cell, Math.max(cell, 5), Math.max(cell, 5), this.inks.glow);
  }

  /** The light between the part of the picture and the number it becomes. */
  drawBeam(box) {
    const polygon = this.beam.firstChild;
    if (!box) return polygon.setAttribute("points", "");
    const { photo, map, isBelow } = this.offsets;
    const cell = this.mapCell;
    const [left, right, top, bottom] = [photo[0] + this.lit.left, photo[0] + this.lit.right, photo[1] + this.lit.top, photo[1] + this.lit.bottom];
    const [x, y] = [map[0] + this.x * cell, map[1] + this.y * cell];
    const points = isBelow ? [left, bottom, right, bottom, x + cell, y, x, y] : [right, top, x, y, x, y + cell, right, bottom];
    return polygon.setAttribute("points", points.join(" "));
  }

  numbers() {
    if (!this.panel.rows) return null;
    this.table = h("div", { class: "table-holder", tabindex: "0", role: "region", "aria-label": t("all_numbers") });
    this.details = h("details", { class: "numbers", ontoggle: () => this.redrawTable() }, h("summary", {}, t("all_numbers")), this.table);
    return this.details;
  }

  redrawTable() {
    if (!this.details?.open) return;
    const [head, ...rows] = this.panel.rows();
    this.table.replaceChildren(
      h("table", {}, h("thead", {}, h("tr", {}, head.map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, rows.map((row) => h("tr", {}, row.map((value) => h("td", {}, written(value, Number.isInteger(value) ? 0 : 6))))))),
    );
  }

  export() {
    const text = this.panel.rows().map((row) => row.join(",")).join("\n");
    const address = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    h("a", { href: address, download: `${this.layer.name}-${this.channel}-${this.y}-${this.x}.csv` }).click();
    URL.revokeObjectURL(address);
  }
}

/** Two lines, one dark and one light, so that a frame is seen on any ground. */
function frame(context, left, top, width, height, light) {
  context.lineWidth = 4;
  context.strokeStyle = "rgb(8 9 14 / 0.85)";
  context.strokeRect(left, top, width, height);
  context.lineWidth = 2;
  context.strokeStyle = light;
  context.strokeRect(left, top, width, height);
}

/** Tells of each place under a window whether it is in the padding. */
const outsideOf = ({ shape: [, height, width] }, { rows, columns }) => (row, column) =>
  rows[row] < 0 || rows[row] >= height || columns[column] < 0 || columns[column] >= width;

/** A chain of numbers: pairs of label and element, with a sign between them. */
function equation(parts) {
  return h("div", { class: "equation" }, parts.map((part) => (typeof part === "string" ? h("span", { class: "sign", "aria-hidden": "true" }, part) : h("span", { class: part.isTotal ? "chip total" : "chip" }, h("small", {}, part.label), part.value))));
}

/** patch x filter = products, the sums of the channels, the bias, then batch norm and activation. */
class ConvolutionPanel {
  hasDigits = true;

  constructor(sweep) {
    this.sweep = sweep;
    [this.rowsOf, this.columnsOf] = sweep.layer.kernel_size;
  }

  async prepare() {
    const { layer, channel, app, subject } = this.sweep;
    const found = await api.filter(layer.name, channel);
    this.weights = Float64Array.from(found.weights.flat(2));
    this.bias = found.statistics.bias;
    this.chain = await Promise.all(
      followers(app.layers, layer).map(async (one) => {
        const kept = kindOf(one) === "batch_norm" ? await api.trace(subject.id, one.name, channel, 0, 0) : null;
        const maps = kept ? null : await api.mapsOf(subject.id, one.name);
        return { layer: one, kept, values: maps && channelOf(maps, channel), value: num(0, 5) };
      }),
    );
    this.limits = { patch: limitOf(this.sweep.inputs[0].data), weights: limitOf(this.weights) };
  }

  element() {
    const { layer } = this.sweep;
    this.sum = num(0, 5);
    this.total = num(0, 5);
    this.grids = h("canvas", { id: "torch-grids", role: "img", "aria-label": `${t("under_window")} × ${t("times_filter")} = ${t("products")}` });
    this.otherText = h("p", { class: "quiet-text" });
    this.strip = h("canvas", { id: "torch-channels", role: "img", "aria-label": t("every_channel") });
    const inputs = layer.in_shapes[0][0] / layer.groups;
    this.shown = Math.min(inputs, inputs <= ROWS ? inputs : ROWS - 1);
    this.hasStrip = inputs > this.shown;
    this.holder = h("div", { class: "grids-holder" }, this.grids);
    return card("arithmetic",
      this.holder,
      layer.padding.some((side) => side > 0) && quiet(t("padding_note")),
      this.hasStrip && [this.otherText, h("h3", {}, t("every_channel")), this.strip],
    );
  }

  /** From the products to the number, and on through what follows. */
  result() {
    const { layer } = this.sweep;
    const bias = this.bias === 0 ? [] : ["+", { label: t("bias"), value: num(this.bias, 5) }, "=", { label: layer.name, value: this.total, isTotal: true }];
    const chain = this.chain.flatMap(({ layer: one, value }) => ["→", { label: `${one.name} · ${one.type}`, value }]);
    return equation([{ label: t("sum_products", { count: this.weights.length }), value: this.sum, isTotal: this.bias === 0 }, ...bias, ...chain]);
  }

  resize() {
    const width = this.holder.clientWidth;
    const cell = Math.max(3, Math.min(this.rowsOf > 3 ? 36 : 46, Math.floor((width - 3 * SIGN) / (3 * this.columnsOf))));
    this.geometry = { cell, rowHeight: this.rowsOf * cell + 36, width };
    this.context = sharpen(this.grids, width, 22 + this.shown * this.geometry.rowHeight);
    if (this.hasStrip) this.stripContext = sharpen(this.strip, width, 72);
  }

  draw(y, x) {
    const { layer, inputs, channel } = this.sweep;
    const found = convolution(layer, inputs[0], this.weights, this.bias, channel, y, x);
    this.found = found;
    const order = this.hasStrip ? strongest(found.sums) : Array.from(found.sums.keys());
    this.drawGrids(found, order.slice(0, this.shown));
    if (this.hasStrip) {
      const others = order.slice(this.shown).reduce((sum, one) => sum + found.sums[one], 0);
      this.otherText.textContent = `${t("others", { count: order.length - this.shown })}: ${written(others, 5)}`;
      this.drawStrip(found);
    }
    renumber(this.sum, found.sum, 5);
    renumber(this.total, found.total, 5);
    let value = found.total;
    for (const step of this.chain) {
      value = step.kept ? batchNorm(value, step.kept) : step.values[y * this.sweep.width + x];
      renumber(step.value, value, 5);
    }
    return found.total;
  }

  drawGrids(found, chosen) {
    const { context, geometry } = this;
    const { cell, rowHeight, width } = geometry;
    const { inks: { ink, muted, mono }, inputs, digits } = this.sweep;
    const [rows, columns] = [this.rowsOf, this.columnsOf];
    const block = columns * cell;
    const starts = [0, block + SIGN, 2 * (block + SIGN)];
    const outside = outsideOf(inputs[0], found);
    const text = (words, left, top, { align = "left", colour = ink, font = "12px" }) => {
      Object.assign(context, { textAlign: align, textBaseline: "middle", fillStyle: colour, font: `${font} system-ui, sans-serif` });
      context.fillText(words, left, top);
    };
    context.clearRect(0, 0, width, 22 + this.shown * rowHeight);
    [t("under_window"), t("times_filter"), t("products")].forEach((words, index) => text(words, starts[index], 9, { colour: muted, font: block < 90 ? "10px" : "12px" }));
    const grid = { cell, digits: digits === "full" ? 4 : digits, font: `${cellFont(cell, digits)}px ${mono}` };
    const limits = [this.limits.patch, this.limits.weights, 0.6 * this.limits.patch * this.limits.weights];
    chosen.forEach((one, index) => {
      const top = 46 + index * rowHeight;
      const at = (row, column) => (one * rows + row) * columns + column;
      text(this.nameOf(one), 0, top - 11, {});
      text(`= ${written(found.sums[one])}`, starts[2] + block, top - 11, { align: "right", font: "13px" });
      [found.patch, found.weights, found.products].forEach((values, part) =>
        drawGrid(context, rows, columns, (row, column) => values[at(row, column)], { ...grid, left: starts[part], top, limit: limits[part], outside: part === 0 ? outside : null }),
      );
      ["×", "="].forEach((sign, after) => text(sign, starts[after + 1] - SIGN / 2, top + (rows * cell) / 2, { align: "center", font: "18px" }));
    });
  }

  nameOf(one) {
    const { layer } = this.sweep;
    const [name] = layer.inputs;
    if (name === "input") return t(COLOURS[one]);
    return `${name.length > 9 ? `…${name.slice(-8)}` : name} ${this.found.first + one}`;
  }

  /** One bar for each input channel, up for what adds and down for what takes away. */
  drawStrip({ sums }) {
    const { stripContext: context, geometry: { width } } = this;
    const limit = limitOf(sums) || 1;
    const step = width / sums.length;
    context.clearRect(0, 0, width, 72);
    sums.forEach((sum, index) => {
      const height = (34 * sum) / limit;
      const [red, green, blue] = colourOf(sum < 0 ? -0.9 : 0.9, 1, true);
      context.fillStyle = `rgb(${red} ${green} ${blue})`;
      context.fillRect(index * step, 36 - Math.max(0, height), Math.max(1, step - 1), Math.abs(height));
    });
    context.fillStyle = this.sweep.inks.muted;
    context.fillRect(0, 36, width, 1);
  }

  rows() {
    const { patch, weights, products, rows, columns, first } = this.found;
    const size = rows.length * columns.length;
    const lines = Array.from(products.keys(), (at) => [first + Math.floor(at / size), rows[Math.floor(at / columns.length) % rows.length], columns[at % columns.length], patch[at], weights[at], products[at]]);
    return [[t("channel"), t("row"), t("column"), t("under_window"), t("times_filter"), t("products")], ...lines];
  }
}

const cellFont = (cell, digits) => Math.max(8, Math.min(13, (cell / (digits === 2 ? 5 : 7)) * 1.45));

/** (input - mean) / sqrt(variance + eps) * weight + bias. */
class BatchNormPanel {
  constructor(sweep) {
    this.sweep = sweep;
  }

  async prepare() {
    const { subject, layer, channel } = this.sweep;
    this.kept = await api.trace(subject.id, layer.name, channel, 0, 0);
  }

  element() {
    const { mean, variance, eps, weight, bias } = this.kept;
    this.input = num(0, 5);
    this.total = num(0, 5);
    const parts = [
      "(", { label: t("came_in"), value: this.input }, "−", { label: "mean", value: num(mean, 5) }, ") ÷ √(", { label: "variance", value: num(variance, 5) }, "+", { label: "eps", value: num(eps, 5) }, ") ×",
      { label: "weight", value: num(weight, 5) }, "+", { label: t("bias"), value: num(bias, 5) }, "=", { label: t("goes_out"), value: this.total, isTotal: true },
    ];
    return card("arithmetic", equation(parts));
  }

  draw(y, x) {
    const input = channelOf(this.sweep.inputs[0], this.sweep.channel)[y * this.sweep.width + x];
    const total = batchNorm(input, this.kept);
    renumber(this.input, input, 5);
    renumber(this.total, total, 5);
    return total;
  }
}

/** What came in across, what goes out upwards: one dot for each number of the map, so any function shows itself. */
class ActivationPanel {
  constructor(sweep) {
    this.sweep = sweep;
    this.input = channelOf(sweep.inputs[0], sweep.channel);
  }

  element() {
    this.curve = h("canvas", { id: "torch-curve", role: "img", "aria-label": `${t("came_in")} → ${t("goes_out")}` });
    this.from = num(0, 5);
    this.to = num(0, 5);
    this.holder = h("div", { class: "curve-holder" }, this.curve);
    return card("arithmetic", this.holder, equation([{ label: t("came_in"), value: this.from }, `→ ${this.sweep.layer.type} →`, { label: t("goes_out"), value: this.to, isTotal: true }]));
  }

  resize() {
    const { input, sweep } = this;
    const [low, high] = rangeOf(input);
    const [bottom, top] = rangeOf(sweep.values);
    const margin = 0.08 * (high - low || 1);
    this.bounds = { low: Math.min(0, low) - margin, high: Math.max(0, high) + margin, bottom: Math.min(0, bottom) - margin, top: Math.max(0, top) + margin };
    this.side = [Math.min(520, this.holder.clientWidth || 1), 260];
    this.context = sharpen(this.curve, ...this.side);
    this.ground = document.createElement("canvas");
    const context = sharpen(this.ground, ...this.side);
    const [zeroX, zeroY] = this.at(0, 0);
    context.strokeStyle = sweep.inks.line;
    context.lineWidth = 1;
    context.strokeRect(0.5, zeroY, this.side[0], 0);
    context.strokeRect(zeroX, 0.5, 0, this.side[1]);
    context.fillStyle = sweep.inks.muted;
    context.globalAlpha = 0.55;
    input.forEach((value, index) => {
      const [x, y] = this.at(value, sweep.values[index]);
      context.beginPath();
      context.arc(x, y, 2.2, 0, 7);
      context.fill();
    });
  }

  at(input, output) {
    const { low, high, bottom, top } = this.bounds;
    return [((input - low) / (high - low)) * this.side[0], (1 - (output - bottom) / (top - bottom)) * this.side[1]];
  }

  draw(y, x) {
    const { context, sweep } = this;
    const [input, output] = [this.input[y * sweep.width + x], sweep.values[y * sweep.width + x]];
    const [left, top] = this.at(input, output);
    const [zeroX, zeroY] = this.at(0, 0);
    context.clearRect(0, 0, ...this.side);
    context.drawImage(this.ground, 0, 0, ...this.side);
    context.strokeStyle = sweep.inks.glow;
    context.lineWidth = 2;
    context.beginPath();
    context.moveTo(left, zeroY);
    context.lineTo(left, top);
    context.lineTo(zeroX, top);
    context.stroke();
    context.fillStyle = sweep.inks.glow;
    context.beginPath();
    context.arc(left, top, 7, 0, 7);
    context.fill();
    renumber(this.from, input, 5);
    renumber(this.to, output, 5);
    return /^relu$/i.test(sweep.layer.type) ? Math.max(0, input) : null; // what others compute the service knows
  }
}

/** The window of a pooling: the largest keeps its place, or all share in the mean. */
class PoolPanel {
  hasDigits = true;

  constructor(sweep) {
    this.sweep = sweep;
    this.isMax = kindOf(sweep.layer) === "max_pool";
    this.divisor = sweep.layer.kernel_size[0] * sweep.layer.kernel_size[1];
  }

  element() {
    const [rows, columns] = this.sweep.layer.kernel_size;
    this.cell = Math.min(64, Math.floor(280 / Math.max(rows, columns)));
    this.grid = h("canvas", { id: "torch-grids", role: "img", "aria-label": t("under_window") });
    this.total = num(0, 5);
    this.middle = h("span", {});
    const parts = ["→", { label: this.isMax ? t("largest") : t("goes_out"), value: this.total, isTotal: true }];
    const hasPadding = this.sweep.layer.padding.some((side) => side > 0);
    return card("arithmetic", h("div", { class: "equation" }, this.grid, this.middle, equation(parts)), hasPadding && quiet(t(this.isMax ? "padding_note_max" : "padding_note")));
  }

  resize() {
    const [rows, columns] = this.sweep.layer.kernel_size;
    this.context = sharpen(this.grid, columns * this.cell + 3, rows * this.cell + 3);
    this.limit = limitOf(this.sweep.inputs[0].data);
    this.signed = isSigned(this.sweep.inputs[0].data);
  }

  draw(y, x) {
    const { layer, inputs, channel, digits, inks: { mono, glow } } = this.sweep;
    const found = this.isMax ? maxPool(layer, inputs[0], channel, y, x) : averagePool(layer, inputs[0], channel, y, x, this.divisor);
    this.found = found;
    const [rows, columns] = layer.kernel_size;
    const outside = outsideOf(inputs[0], found);
    this.context.clearRect(0, 0, columns * this.cell + 3, rows * this.cell + 3);
    const colour = (value) => (value === -Infinity ? [128, 128, 128] : colourOf(value, this.limit, this.signed));
    drawGrid(this.context, rows, columns, (row, column) => found.patch[row * columns + column], { left: 2, top: 2, cell: this.cell, digits: digits === "full" ? 5 : digits, font: `${this.cell > 50 ? 14 : 11}px ${mono}`, outside, colour });
    if (this.isMax) frame(this.context, 2 + (found.winner % columns) * this.cell, 2 + Math.floor(found.winner / columns) * this.cell, this.cell - 1, this.cell - 1, glow);
    else this.middle.textContent = t("mean_of", { sum: written(found.sum, 4), divisor: found.divisor });
    renumber(this.total, found.total, 5);
    const isSure = this.isMax || layer.padding.every((side) => side === 0);
    return isSure ? found.total : null;
  }

  /** How many count at the border only the layer knows. */
  settle({ divisor }) {
    if (!divisor || divisor === this.found.divisor) return;
    this.middle.textContent = t("mean_of", { sum: written(this.found.sum, 4), divisor });
    renumber(this.total, this.found.sum / divisor, 5);
  }
}

/** Two or more branches that meet, place by place. */
class BranchesPanel {
  constructor(sweep) {
    this.sweep = sweep;
    this.isSum = kindOf(sweep.layer) === "sum";
  }

  element() {
    this.terms = this.sweep.inputs.map(() => num(0, 5));
    this.total = num(0, 5);
    const parts = this.terms.flatMap((value, index) => [...(index ? [this.isSum ? "+" : "×"] : []), { label: this.sweep.layer.inputs[index], value }]);
    return card("arithmetic", equation([...parts, "=", { label: this.sweep.layer.name, value: this.total, isTotal: true }]));
  }

  draw(y, x) {
    const { inputs, channel } = this.sweep;
    const values = inputs.map(({ shape: [, height, width], data }) => data[(channel * height + Math.min(y, height - 1)) * width + Math.min(x, width - 1)]);
    values.forEach((value, index) => renumber(this.terms[index], value, 5));
    const total = this.isSum ? values.reduce((sum, value) => sum + value, 0) : values.reduce((product, value) => product * value, 1);
    renumber(this.total, total, 5);
    return total;
  }
}

class Still {
  constructor({ app, subject, layer, channel, signal, target }) {
    Object.assign(this, { app, subject, layer, channel, signal, target });
  }

  async draw(host, controls) {
    const waiting = h("p", { class: "waiting" }, t("computing"));
    host.append(waiting);
    try {
      const found = await api.trace(this.subject.id, this.layer.name, this.channel);
      if (this.signal.aborted) return;
      const check = new Check();
      check.settle(found);
      const shapes = { Linear: () => this.linear(found), Softmax: () => this.softmax(found, controls), AveragePool: () => this.average(found), MaxPool: () => this.average(found), Activation: () => this.activation(found), BatchNorm: () => this.activation(found), Sum: () => this.terms(found.terms, "+", found), Product: () => this.terms(found.factors, "×", found), Copy: () => this.copy(found) };
      const content = await (shapes[found.kind] ?? (() => this.terms([], "", found)))();
      waiting.remove();
      host.append(card("arithmetic", content), check.element);
    } catch (problem) {
      waiting.replaceWith(h("p", { class: "notice" }, api.sentence(problem)));
    }
  }

  /** The inputs that count most, with the maps they are the means of where they are. */
  async linear({ inputs, weights, products, bias, total }) {
    const order = strongest(products);
    const chosen = order.slice(0, TERMS);
    const limit = Math.abs(products[order[0]]) || 1;
    const rest = order.slice(TERMS).reduce((sum, index) => sum + products[index], 0);
    const pooled = this.pooledMaps();
    const maps = pooled && (await api.mapsOf(this.subject.id, pooled.name));
    const row = (name, value, detail, index, tile = null) =>
      h("li", { class: "term-row" },
        tile ?? h("span", { class: "term-tile" }),
        h("span", { class: "term-name" }, name),
        h("span", { class: "term-detail" }, detail),
        track(value / limit, { signed: true, delay: 60 * index }),
        num(value),
      );
    const rows = chosen.map((index, place) => {
      const tile = maps && h("a", { class: "term-tile", href: addressOf({ view: "unit", layer: pooled.name, channel: index, y: null, x: null }) }, picture(`${pooled.name} ${index}`, (canvas) => paintMap(canvas, channelOf(maps, index), maps.shape[1], maps.shape[2], { signed: isSigned(maps.data) })));
      return row(`${pooled ? pooled.name : this.layer.inputs[0]} ${index}`, products[index], [num(inputs[index], 3), " × ", num(weights[index], 3)], place, tile);
    });
    if (order.length > TERMS) rows.push(row(t("rest_of_inputs", { count: order.length - TERMS }), rest, "", rows.length));
    rows.push(row(bias === 0 ? t("no_bias") : t("bias"), bias, "", rows.length));
    return [heading(t("strongest_inputs")), h("ol", { class: "term-rows" }, rows), equation([{ label: t("sum_products", { count: products.length }), value: num(products.reduce((sum, value) => sum + value, 0), 5) }, "+", { label: t("bias"), value: num(bias, 5) }, "=", this.result(total)])];
  }

  /** The maps whose means a fully connected layer reads, if it does. */
  pooledMaps() {
    let layer = this.app.byName.get(this.layer.inputs[0]);
    const channels = this.layer.in_shapes[0][0];
    let isPooled = false;
    while (layer) {
      if (layer.out_shape[0] !== channels) return null;
      if (hasPlaces(layer)) return isPooled ? layer : null;
      isPooled ||= kindOf(layer) === "global_pool";
      layer = layer.inputs.length === 1 ? this.app.byName.get(layer.inputs[0]) : null;
    }
    return null;
  }

  result(total, digits = 5) {
    return { label: this.nameOf(), value: num(total, digits), isTotal: true };
  }

  nameOf() {
    const isOutput = this.layer.name === "softmax" || this.layer.name === this.app.layers.at(-1).name;
    return isOutput ? this.app.model.classes[this.channel] : `${this.layer.name} ${this.channel}`;
  }

  /** Three columns of bars that grow one after the other: logit, power of e, share. */
  softmax({ logits, shift, exponentials, sum }, controls) {
    const order = this.subject.predictions.map(({ index }) => index).slice(0, 12);
    if (!order.includes(this.channel)) order.push(this.channel);
    const limit = limitOf(logits);
    const rows = order.map((index) =>
      h("tr", { class: index === this.channel ? "target" : null },
        h("th", { scope: "row" }, this.app.model.classes[index]),
        h("td", {}, num(logits[index]), track(logits[index] / limit, { signed: true, delay: 0 })),
        h("td", {}, num(exponentials[index]), track(exponentials[index], { delay: 500 })),
        h("td", {}, h("data", { value: exponentials[index] / sum }, percent(exponentials[index] / sum)), track(exponentials[index] / sum, { delay: 1000 })),
      ),
    );
    const head = ["", t("logit"), t("power", { shift: written(shift, 3) }), t("share", { sum: written(sum) })];
    const table = h("table", { class: "softmax" }, h("thead", {}, h("tr", {}, head.map((text) => (text ? h("th", { scope: "col" }, text) : h("td", {}))))), h("tbody", {}, rows));
    controls.append(button(t("replay"), () => table.replaceWith(table)));
    const exact = exponentials[this.channel] / sum;
    return [h("div", { class: "table-holder", tabindex: "0", role: "region", "aria-label": t("probabilities") }, table), equation([{ label: t("power", { shift: written(shift, 3) }), value: num(exponentials[this.channel], 5) }, "÷", { label: t("sum_of"), value: num(sum, 5) }, "=", this.result(exact, 6)])];
  }

  average({ patch, divisor, total }) {
    const [height, width] = [patch.length, patch[0].length];
    const values = Float64Array.from(patch.flat());
    const sum = values.reduce((one, other) => one + other, 0);
    return [
      h("div", { class: "equation" }, picture(t("under_window"), (canvas) => paintMap(canvas, values, height, width), { class: "pixels small" }), h("span", {}, divisor ? t("mean_of", { sum: written(sum, 5), divisor }) : t("largest")), equation(["→", this.result(total)])),
    ];
  }

  activation({ input, total }) {
    return [equation([{ label: t("came_in"), value: num(input, 5) }, `→ ${this.layer.type} →`, { label: t("goes_out"), value: num(total, 5), isTotal: true }])];
  }

  terms(terms, sign, { total }) {
    const parts = terms.flatMap((value, index) => [...(index ? [sign] : []), { label: this.layer.inputs[index], value: num(value, 5) }]);
    return [equation([...parts, "=", this.result(total)])];
  }

  copy({ source, source_position: place, total }) {
    const text = t("passes_on", { source, channel: place.channel, y: place.y, x: place.x });
    const link = this.app.byName.get(source)?.views.includes("trace") && h("a", { class: "button small", href: addressOf({ layer: source, channel: place.channel, y: place.y, x: place.x }) }, source);
    return [h("p", {}, text, " ", link), equation([this.result(total)])];
  }
}
