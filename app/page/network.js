/** The whole network for one picture: a column of activation maps for each block, and where a map comes from. */

import * as api from "./api.js";
import { blocksOf, clip, convolution, faceOf, hasPlaces, isMaps, isVector, kindOf, mostActive, normalise, peakOf, seenBy } from "./arithmetic.js";
import { channelOf, COLOURS, flagOf, isSigned, legend, limitOf, paintMap, paintPixels, picture, rangeOf } from "./drawing.js";
import { addressOf, atRest, button, card, go, h, heading, labelled, num, percent, quiet, strongest, svg, switcher, track, written } from "./page.js";
import { flagWords, rich, t } from "./words.js";

const SHOWN = 8; // maps in a column
const SOURCES = 5; // maps that a map is made of most
const CLASSES = 10;

/** @typedef {Object} Column a `block` of layers, the `layer` whose maps are shown, its `element`, and `maps` once they are there */

export async function show(host, showing) {
  const view = new Overview(showing);
  host.append(...view.elements());
  view.watch(showing.signal);
  return { update: (state) => view.follow(state) };
}

class Overview {
  constructor({ app, state, subject, target, signal }) {
    Object.assign(this, { app, state, subject, target, signal });
    this.size = app.model.preprocessing.size;
    this.columns = blocksOf(app.layers).map((block) => ({ block, layer: shownOf(block, state) }));
    this.trackBack = atRest(90, (column, channel, tile) => this.showSources(column, channel, tile));
  }

  elements() {
    this.columns.forEach((column, index) => {
      column.element = h("section", { class: "column", "aria-label": t("block_alt", { number: index + 1, layer: column.block[0].name }) });
      this.drawColumn(column);
    });
    this.edges = svg("svg", { class: "edges", "aria-hidden": "true" });
    this.inputColumn = this.drawInput();
    this.strip = h("div", { class: "strip", role: "region", tabindex: "0", "aria-label": t("strip_label") },
      h("div", { class: "strip-inside" }, this.edges, this.inputColumn, this.columns.map(({ element }) => element), this.drawProbabilities()),
    );
    this.origin = card("origin", heading(t("comes_from")), quiet(t("comes_from_hint")));
    this.drawer = h("dialog", { class: "drawer", onclose: () => this.signal.aborted || go({ open: null }) });
    this.limitField = h("input", { type: "number", min: 0, step: "any", id: "limit", onchange: () => Number(this.limitField.value) > 0 && go({ limit: Number(this.limitField.value) }, { replace: true }) });
    this.limitLabel = labelled(t("scale_limit"), this.limitField);
    this.legend = h("div", { class: "legend-holder" });
    this.adjustScale();
    const scales = ["map", "layer", "fixed"].map((name) => [name, t(`scale_${name}`)]);
    return [
      h("h1", {}, t("network_title")),
      h("p", { class: "guide" }, rich("network_guide")),
      h("div", { class: "controls" }, switcher(t("scale"), scales, this.state.scale ?? "layer", (scale) => this.choose(scale)), this.limitLabel, this.legend),
      this.strip,
      this.origin,
      this.drawer,
    ];
  }

  /** Fetch the maps of a column when it comes into sight. */
  watch(signal) {
    const observer = new IntersectionObserver(
      (entries) => entries.filter((one) => one.isIntersecting).forEach((one) => {
        observer.unobserve(one.target);
        this.fetch(this.columns.find(({ element }) => element === one.target));
      }),
      { rootMargin: "400px" },
    );
    this.columns.forEach(({ element }) => observer.observe(element));
    signal.addEventListener("abort", () => observer.disconnect());
    if (this.state.open) this.openDrawer(this.state.open);
  }

  drawColumn(column) {
    const { block, layer, element } = column;
    const shown = block.filter((one) => one.views.includes("activations"));
    const number = this.columns.indexOf(column) + 1;
    column.tiles = h("div", { class: "tiles" }, h("p", { class: "waiting" }, t("computing")));
    const chooser = shown.length > 1 && h("select", { class: "shows", id: `shows-${number}`, "aria-label": t("shows", { block: number }), onchange: (event) => this.change(column, event.target.value) },
      shown.map((one) => h("option", { value: one.name, selected: one === layer }, `${shortName(one.name)} · ${one.type}`)),
    );
    element.replaceChildren(
      h("h2", { title: block[0].name }, h("bdi", {}, block[0].name)),
      chooser || h("p", { class: "shows-only" }, layer.type),
      h("p", { class: "badges" }, h("span", { title: sizeOf(layer) }, layer.out_shape.join(" × ")), h("span", {}, sightOf(layer))),
      column.tiles,
    );
  }

  async fetch(column) {
    const { layer, tiles, block } = column;
    try {
      if (layer.views.includes("activations")) {
        const maps = await api.mapsOf(this.subject.id, layer.name);
        if (column.layer !== layer) return; // another one was chosen meanwhile
        column.maps = maps;
        this.drawTiles(column);
      } else if (isVector(layer)) {
        tiles.replaceChildren(...(await this.drawVector(block)));
      } else {
        tiles.replaceChildren(quiet(t("not_maps", { shape: layer.out_shape.join(" × ") })));
      }
    } catch (problem) {
      tiles.replaceChildren(quiet(api.sentence(problem)));
    }
  }

  drawTiles(column) {
    const { maps, tiles, layer } = column;
    const order = mostActive(maps).slice(0, SHOWN);
    const more = maps.shape[0] > SHOWN && button(t("all_maps", { count: maps.shape[0] }), () => go({ open: layer.name }), "small", { id: `all-${layer.name}` });
    tiles.replaceChildren(...order.map((channel) => this.tile(column, channel)), more || "");
    this.adjustScale();
  }

  tile(column, channel) {
    const { layer, maps } = column;
    const values = channelOf(maps, channel);
    const flag = flagOf(values);
    const link = h("a", { class: flag ? "tile flagged" : "tile", href: addressOf({ view: "unit", layer: layer.name, channel, y: null, x: null, open: null }), "data-channel": channel },
      picture(mapName(layer, channel, values), (canvas) => this.paint(canvas, column, channel)),
      h("span", { class: "tile-label", "aria-hidden": "true" }, String(channel), flag && ` · ${flagWords(flag)}`),
    );
    const back = () => this.trackBack(column, channel, link);
    link.addEventListener("mouseenter", back);
    link.addEventListener("focus", back);
    return link;
  }

  paint(canvas, { maps }, channel) {
    const values = channelOf(maps, channel);
    const scale = this.state.scale ?? "layer";
    const limit = scale === "map" ? limitOf(values) : scale === "fixed" ? this.state.limit : limitOf(maps.data);
    paintMap(canvas, values, maps.shape[1], maps.shape[2], { limit, signed: isSigned(maps.data) });
  }

  drawInput() {
    const { pixels } = this.subject;
    const side = this.size;
    const plane = side * side;
    const colours = COLOURS.map((name, channel) => {
      const only = new Uint8Array(3 * plane);
      only.set(pixels.data.subarray(channel * plane, (channel + 1) * plane), channel * plane);
      return h("div", { class: "tile still", "data-channel": channel }, picture(t(name), (canvas) => paintPixels(canvas, only, side, side)), h("span", { class: "tile-label", "aria-hidden": "true" }, t(name)));
    });
    const whole = h("div", { class: "tile still whole" }, picture(t("what_it_sees_alt", { size: side }), (canvas) => paintPixels(canvas, pixels.data, side, side)));
    return h("section", { class: "column", "aria-label": t("input") },
      heading(t("input")),
      h("p", { class: "shows-only" }, "RGB"),
      h("p", { class: "badges" }, h("span", {}, `3 × ${side} × ${side}`)),
      h("div", { class: "tiles" }, whole, colours),
    );
  }

  /** The numbers of a vector: the logits, or what the next fully connected layer reads of this block. */
  async drawVector(block) {
    const last = this.app.layers.at(-1);
    if (block.includes(last)) return this.drawLogits(last);
    const reader = this.app.layers.find((one) => kindOf(one) === "linear" && block.some(({ name }) => one.inputs.includes(name)));
    if (!reader) return [quiet(t("vector_of", { count: block[0].out_shape[0] }))];
    const { inputs } = await api.trace(this.subject.id, reader.name, 0);
    const width = Math.ceil(Math.sqrt(inputs.length));
    const padded = new Float32Array(width * Math.ceil(inputs.length / width));
    padded.set(inputs);
    const [low, high] = rangeOf(inputs);
    const text = `${t("vector_of", { count: inputs.length })}, ${written(low, 2)} – ${written(high, 2)}`;
    return [h("div", { class: "tile still" }, picture(text, (canvas) => paintMap(canvas, padded, padded.length / width, width)))];
  }

  drawLogits(layer) {
    const { predictions } = this.subject;
    const limit = limitOf(predictions.map(({ logit }) => logit));
    return this.drawClasses(layer.name, ({ logit }) => [num(logit, 2), track(logit / limit, { signed: true })]);
  }

  /** The most probable classes, each leading to where its number comes from. */
  drawClasses(layer, numbersOf) {
    const rows = this.subject.predictions.slice(0, CLASSES).map((one) => {
      const href = addressOf({ view: "torch", layer, channel: one.index, y: null, x: null });
      return h("a", { class: one.label === this.target ? "mini target" : "mini", href }, h("span", {}, one.label), numbersOf(one));
    });
    return [h("div", { class: "minis" }, rows)];
  }

  drawProbabilities() {
    const numbersOf = ({ probability }) => [h("data", { value: probability }, percent(probability)), track(probability)];
    return h("section", { class: "column", "aria-label": t("probabilities") },
      h("h2", {}, "softmax"),
      h("p", { class: "shows-only" }, t("probabilities")),
      h("p", { class: "badges" }, h("span", {}, "Σ = 100 %")),
      h("div", { class: "tiles" }, this.drawClasses("softmax", numbersOf)),
    );
  }

  async choose(scale) {
    let limit = null;
    if (scale === "fixed") {
      const first = this.columns.find(({ layer }) => layer.views.includes("activations"));
      limit = Number(limitOf((await api.mapsOf(this.subject.id, first.layer.name)).data).toPrecision(2)) || 1;
    }
    go({ scale: scale === "layer" ? null : scale, limit }, { replace: true });
  }

  change(column, name) {
    const chosen = this.columns.map((one) => (one === column ? name : one.layer.name)).filter((one, index) => one !== faceOf(this.columns[index].block).name);
    go({ show: chosen.join(",") || null }, { replace: true });
  }

  adjustScale() {
    const scale = this.state.scale ?? "layer";
    this.limitLabel.hidden = scale !== "fixed";
    this.limitField.value = this.state.limit ?? "";
    const limit = (scale === "fixed" && this.state.limit) || null;
    const high = limit === null ? "max" : written(limit, 2);
    const signed = this.columns.some(({ maps }) => maps && isSigned(maps.data));
    this.legend.replaceChildren(legend({ signed: false, high }), ...(signed ? [legend({ signed: true, low: `−${high}`, high })] : []));
  }

  /** Follow a change of the address without drawing all again, if it is one of these. */
  follow(state) {
    const before = this.state;
    const own = { scale: null, limit: null, open: null, show: null };
    if (addressOf(own, state) !== addressOf(own, before)) return false;
    this.state = state;
    for (const column of this.columns) {
      const layer = shownOf(column.block, state);
      if (layer === column.layer) continue;
      Object.assign(column, { layer, maps: undefined });
      this.drawColumn(column);
      this.fetch(column);
    }
    if (state.scale !== before.scale || state.limit !== before.limit) {
      this.columns.filter(({ maps }) => maps).forEach((column) => this.drawTiles(column));
      this.adjustScale();
    }
    if (state.open !== before.open) state.open ? this.openDrawer(state.open) : this.drawer.close();
    return true;
  }

  async openDrawer(name) {
    const layer = this.app.byName.get(name);
    if (!layer?.views.includes("activations")) return;
    const maps = await api.mapsOf(this.subject.id, name);
    if (this.signal.aborted || this.state.open !== name) return;
    const column = { layer, maps, block: [] };
    this.drawer.setAttribute("aria-label", t("maps_of_layer", { layer: name }));
    this.drawer.replaceChildren(
      h("div", { class: "drawer-head" }, heading(t("maps_of_layer", { layer: name })), h("span", { class: "quiet-text" }, sizeOf(layer)), button(t("close"), () => this.drawer.close(), "small")),
      h("div", { class: "drawer-tiles" }, mostActive(maps).map((channel) => this.tile(column, channel))),
    );
    if (!this.drawer.open) this.drawer.showModal();
  }

  /** Show what the strongest place of a map sees of the picture, and which maps it is made of most. */
  async showSources(column, channel, tile) {
    const { layer, maps } = column;
    const values = channelOf(maps, channel);
    const at = peakOf(values);
    const [y, x] = [Math.floor(at / maps.shape[2]), at % maps.shape[2]];
    this.pointed = tile;
    const found = await this.sources(column, channel, y, x);
    if (this.signal.aborted || this.pointed !== tile) return;
    const box = layer.receptive_field && clip(seenBy(layer.receptive_field, y, x), this.size);
    const lit = picture(t("comes_from_of", { layer: layer.name, channel, y, x }), (canvas) => paintLit(canvas, this.subject.pixels.data, this.size, box), { class: "lit" });
    this.origin.replaceChildren(
      heading(t("comes_from")),
      h("div", { class: "origin-row" }, lit, h("div", {}, h("p", {}, t("comes_from_of", { layer: layer.name, channel, y, x }), ": ", num(values[at], 3)), found && h("ul", { class: "sources" }, found.sources.map((one) => this.drawSource(found, one))))),
    );
    this.drawEdges(found, tile);
  }

  async sources(column, channel, y, x) {
    const first = column.block.find((one) => kindOf(one) === "convolution");
    const isSamePlace = first && first.out_shape.join() === column.layer.out_shape.join();
    if (!isSamePlace) return null;
    const source = first.inputs[0];
    const [input, filter] = await Promise.all([this.inputOf(source), api.filter(first.name, channel)]);
    const { sums, first: offset } = convolution(first, input, filter.weights.flat(2), filter.statistics.bias, channel, y, x);
    return { source, input, sources: strongest(sums, SOURCES).map((one) => ({ channel: offset + one, sum: sums[one] })) };
  }

  inputOf(name) {
    if (name !== "input") return api.mapsOf(this.subject.id, name);
    return normalise(this.subject.pixels, this.app.model.preprocessing);
  }

  drawSource({ source, input }, { channel, sum }) {
    const values = channelOf(input, channel);
    const signed = isSigned(input.data);
    const draw = (canvas) => paintMap(canvas, values, input.shape[1], input.shape[2], { limit: limitOf(input.data), signed });
    const isInput = source === "input";
    const text = isInput ? t(COLOURS[channel]) : String(channel);
    const name = t("adds", { what: isInput ? text : `${source} ${channel}`, value: written(sum, 3) });
    const inside = [picture(name, draw), h("span", { "aria-hidden": "true" }, text), h("span", { class: sum < 0 ? "number against" : "number for", "aria-hidden": "true" }, (sum < 0 ? "" : "+") + written(sum, 3))];
    return h("li", {}, isInput ? h("div", { class: "source" }, inside) : h("a", { class: "source", href: addressOf({ view: "unit", layer: source, channel, y: null, x: null, open: null }) }, inside));
  }

  /** Draw a line to the map from each map that it is made of, as far as they are on the page. */
  drawEdges(found, tile) {
    this.strip.querySelectorAll(".tile.lit-up").forEach((one) => one.classList.remove("lit-up"));
    this.edges.replaceChildren();
    if (!found || !this.strip.contains(tile)) return;
    tile.classList.add("lit-up");
    const holder = found.source === "input" ? this.inputColumn : this.columns.find(({ block }) => block.some(({ name }) => name === found.source))?.element;
    const frame = this.edges.parentElement.getBoundingClientRect();
    this.edges.setAttribute("viewBox", `0 0 ${frame.width} ${frame.height}`);
    const to = tile.querySelector("canvas").getBoundingClientRect();
    const limit = Math.max(...found.sources.map(({ sum }) => Math.abs(sum)));
    for (const { channel, sum } of found.sources) {
      const from = holder?.querySelector(`[data-channel="${channel}"] canvas`) ?? holder?.querySelector(".button"); // else among all
      if (!from) continue;
      from.closest(".tile")?.classList.add("lit-up");
      this.edges.append(curve(from.getBoundingClientRect(), to, frame, sum, 1 + (4 * Math.abs(sum)) / limit));
    }
  }
}

/** The layer of a block whose maps are shown: the one that the address names, else its face. */
function shownOf(block, { show = "" }) {
  const chosen = show.split(",");
  return block.find(({ name }) => chosen.includes(name)) ?? faceOf(block);
}

function curve(from, to, frame, sum, width) {
  const isBelow = to.left < from.right; // on narrow screens blocks are rows
  const start = isBelow ? [from.left + from.width / 2 - frame.left, from.bottom - frame.top] : [from.right - frame.left, from.top + from.height / 2 - frame.top];
  const end = isBelow ? [to.left + to.width / 2 - frame.left, to.top - frame.top] : [to.left - frame.left, to.top + to.height / 2 - frame.top];
  const middle = [(start[0] + end[0]) / 2, (start[1] + end[1]) / 2];
  const bend = isBelow ? `${start[0]} ${middle[1]} ${end[0]} ${middle[1]}` : `${middle[0]} ${start[1]} ${middle[0]} ${end[1]}`;
  return svg("path", { d: `M${start} C${bend} ${end}`, class: sum < 0 ? "edge against" : "edge for", "stroke-width": width });
}

/** Draw what the network sees, dark but for a box. */
export function paintLit(canvas, pixels, side, box) {
  const dim = Uint8Array.from(pixels, (value, index) => {
    const [y, x] = [Math.floor(index / side) % side, index % side];
    const isLit = box && y >= box.top && y <= box.bottom && x >= box.left && x <= box.right;
    return isLit ? value : 0.3 * value;
  });
  paintPixels(canvas, dim, side, side);
}

/** What a map is called for those who do not see it. */
export function mapName(layer, channel, values) {
  const flag = flagOf(values);
  const [low, high] = rangeOf(values).map((value) => written(value, 2));
  return t("map_alt", { layer: layer.name, channel, low, high, flag: flag && `, ${flagWords(flag)}` });
}

export function sizeOf(layer) {
  if (isMaps(layer)) return t("maps_of", { channels: layer.out_shape[0], height: layer.out_shape[1], width: layer.out_shape[2] });
  return isVector(layer) ? t("vector_of", { count: layer.out_shape[0] }) : layer.out_shape.join(" × ");
}

export function sightOf({ receptive_field: field, out_shape }) {
  if (!field) return t("sees_unknown");
  if (field.jump[0] === 0 || out_shape.length === 1) return t("sees_all");
  return t("sees", { height: field.size[0], width: field.size[1] });
}

/** The end of a long dotted name: where it is cut, the rest is in the title. */
const shortName = (name) => (name.length > 13 ? `…${name.slice(-12)}` : name);

/** The layer that the address names if it has such a view, else the first one that has. */
export function layerOr(app, name, fits) {
  const layer = app.byName.get(name);
  return layer && fits(layer) ? layer : app.layers.find((one) => fits(one) && (hasPlaces(one) || !isMaps(one))) ?? app.layers.find(fits);
}
