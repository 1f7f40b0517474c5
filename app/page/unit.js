/** One channel of one layer: its map, its filter, its numbers, what fired it, and other images that do. */

import * as api from "./api.js";
import { kindOf, mostActive } from "./arithmetic.js";
import { channelOf, COLOURS, flagOf, isSigned, legend, limitOf, paintColours, paintMap, paintPixels, picture, rangeOf } from "./drawing.js";
import { addressOf, button, card, cellUnder, choice, figure, go, h, heading, indexOr, num, quiet, strongest, svg, written } from "./page.js";
import { layerOr, mapName, sightOf, sizeOf } from "./network.js";
import { flagWords, rich, t } from "./words.js";

const BINS = 40;
const INPUTS = 16; // input channels of a deep filter that are shown

export async function show(host, { app, state, subject, signal }) {
  const preferred = (layer) => layer.views.includes("activations");
  const layer = layerOr(app, state.layer, preferred);
  if (!layer) {
    host.append(h("h1", {}, t("unit_title")), h("p", { class: "notice" }, t("no_convolution")));
    return;
  }
  const maps = await api.mapsOf(subject.id, layer.name);
  if (signal.aborted) return;
  const channel = indexOr(state.channel, maps.shape[0], mostActive(maps)[0]);
  if (state.layer !== layer.name || state.channel !== channel) go({ layer: layer.name, channel }, { replace: true, quiet: true });
  const values = channelOf(maps, channel);
  const cards = [
    card("unit-map", bigMap(layer, maps, values, channel)),
    card("unit-filter", heading(t("its_filter"))),
    card("unit-histogram", histogram(values)),
    card("unit-fired", heading(t("fired"))),
    card("unit-images", heading(t("top_images"))),
  ];
  host.append(
    h("h1", {}, t("unit_title")),
    h("p", { class: "guide" }, rich("unit_guide")),
    h("div", { class: "controls" }, choosers(app.layers.filter(preferred), layer, channel)),
    h("p", { class: "badges" }, h("span", {}, sizeOf(layer)), h("span", {}, layer.type), h("span", {}, sightOf(layer))),
    h("div", { class: "unit-grid" }, cards),
  );
  await Promise.all([
    orProblem(cards[1], () => drawFilter(app, layer, channel)),
    orProblem(cards[3], () => drawFired(app, subject, layer, channel)),
    orProblem(cards[4], () => drawImages(app, layer, channel)),
  ]);
}

/** Which of these layers, and which of its channels; `names` are those of the channels, if they have some. */
export function choosers(layers, layer, channel, names = null) {
  const number = layer.out_shape[0];
  const field = h("input", { type: "number", id: "channel", min: 0, max: number - 1, value: channel, onchange: () => turn(Number(field.value)) });
  const turn = (to) => go({ channel: ((Math.round(to) % number) + number) % number, x: null, y: null }, { replace: true });
  const step = (by, name, sign) => button(sign, () => turn(Number(field.value) + by), "small", { id: name, "aria-label": `${t("channel")}: ${t(name)}` });
  const options = layers.map((one) => [one.name, one.name === one.type ? one.name : `${one.name} · ${one.type}`]);
  return [
    choice(t("layer"), options, layer.name, (name) => go({ layer: name, channel: null, y: null, x: null }), { id: "layer" }),
    names
      ? choice(t("for_class"), names.map((name, index) => [index, name]), channel, (index) => turn(Number(index)), { id: "channel" })
      : h("div", { class: "field" }, h("label", { for: "channel" }, t("channel")), h("div", { class: "stepper" }, step(-1, "previous", "‹"), field, step(1, "next", "›"))),
  ];
}

/** Add what `make` returns, or what the service says instead. */
async function orProblem(card, make) {
  const waiting = h("p", { class: "waiting" }, t("computing"));
  card.append(waiting);
  try {
    card.append(...(await make()).filter(Boolean));
  } catch (problem) {
    card.append(quiet(api.sentence(problem)));
  }
  waiting.remove();
}

function bigMap(layer, maps, values, channel) {
  const [, height, width] = maps.shape;
  const signed = isSigned(maps.data);
  const reading = h("p", { class: "reading" }, t("map_hint"));
  const flag = flagOf(values);
  const placeOf = (event) => cellUnder(event, canvas, height, width);
  const read = (event) => {
    const [y, x] = placeOf(event);
    reading.replaceChildren(t("pixel_at", { y, x }), " ", num(values[y * width + x], 5));
  };
  const canTrace = layer.views.includes("trace");
  const canvas = picture(mapName(layer, channel, values), (one) => paintMap(one, values, height, width, { signed }), {
    class: canTrace ? "pixels pick" : "pixels", onpointermove: read, onclick: (event) => canTrace && openAt(...placeOf(event)),
  });
  const openAt = (y, x) => go({ view: "torch", y, x });
  return [
    heading(t("its_map")),
    flag && h("p", { class: "flag" }, flagWords(flag)),
    canvas,
    legend({ signed, limit: limitOf(values) }),
    reading,
    canTrace && h("a", { class: "button primary", href: addressOf({ view: "torch" }) }, t("open_torch"), " →"),
  ];
}

async function drawFilter(app, layer, channel) {
  const owner = ownerOf(app, layer);
  if (!owner) return [quiet(t("no_filter", { layer: layer.name }))];
  const { weights, statistics } = await api.filter(owner.name, channel);
  const [height, width] = owner.kernel_size;
  const flat = weights.map((rows) => rows.flat());
  const limit = limitOf(flat.flat());
  const name = t("filter_alt", { layer: owner.name, channel });
  const title = owner === layer ? null : quiet(t("its_filter_of", { layer: owner.name }));
  const bias = h("p", { class: "reading" }, statistics.bias === 0 ? t("no_bias") : [t("bias"), " ", num(statistics.bias, 5)]);
  const tile = (one, text) => figure(picture(`${name}: ${text}`, (canvas) => paintMap(canvas, flat[one], height, width, { limit, signed: true })), text);
  if (weights.length === 3) {
    const colours = COLOURS.map((colour, one) => tile(one, t(colour)));
    return [title, picture(name, (canvas) => paintColours(canvas, flat.flat(), height, width, limit), { class: "pixels small" }), h("div", { class: "filter-tiles" }, colours), legend({ signed: true, limit }), quiet(t("filter_rgb", { height, width })), bias];
  }
  const norms = flat.map((values) => Math.hypot(...values));
  const tiles = strongest(norms, INPUTS).map((one) => tile(one, String(one)));
  return [title, h("div", { class: "filter-tiles" }, tiles), legend({ signed: true, limit }), quiet(t("filter_some", { shown: tiles.length, count: weights.length })), bias];
}

/** The convolution whose filter a unit has: its own layer, or the one before it, past batch norm and activation. */
function ownerOf(app, layer) {
  let found = layer;
  while (found && kindOf(found) !== "convolution") {
    const passes = ["batch_norm", "activation"].includes(kindOf(found));
    found = passes && found.inputs.length === 1 ? app.byName.get(found.inputs[0]) : null;
  }
  return found;
}

function histogram(values) {
  const [low, high] = rangeOf(values);
  const span = high - low || 1;
  const counts = new Array(BINS).fill(0);
  values.forEach((value) => (counts[Math.min(BINS - 1, Math.floor(((value - low) / span) * BINS))] += 1));
  const zero = values.filter((value) => value === 0).length;
  const highest = Math.max(1, ...counts);
  const bars = counts.map((count, bin) => svg("rect", { x: bin * 6, y: 80 - (76 * count) / highest, width: 5, height: (76 * count) / highest }));
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const words = { count: values.length, low: written(low, 2), high: written(high, 2), zero, mean: written(mean, 3) };
  return [
    heading(t("histogram")),
    svg("svg", { viewBox: `0 0 ${BINS * 6} 82`, class: "histogram", role: "img", "aria-label": t("histogram_alt", words) }, bars, svg("line", { x1: 0, x2: BINS * 6, y1: 81, y2: 81 })),
    h("div", { class: "ends" }, num(low, 2), num(high, 2)),
    quiet(t("histogram_note", words)),
  ];
}

async function drawFired(app, subject, layer, channel) {
  const found = await api.reconstruction(subject.id, layer.name, channel);
  const side = app.model.preprocessing.size;
  const box = found.box?.clipped;
  const [top, left, bottom, right] = box ?? [0, 0, side - 1, side - 1];
  const [height, width] = [bottom - top + 1, right - left + 1];
  const patch = new Uint8Array(3 * height * width);
  for (let at = 0; at < patch.length; at += 1) {
    const [colour, y, x] = [Math.floor(at / (height * width)), Math.floor(at / width) % height, at % width];
    patch[at] = subject.pixels.data[(colour * side + top + y) * side + left + x];
  }
  const back = found.pixels.flat(2);
  return [
    h("div", { class: "pair" },
      figure(picture(t("patch_alt", { top, left, bottom, right }), (canvas) => paintPixels(canvas, patch, height, width), { class: "pixels" }), t("patch")),
      figure(picture(t("reconstruction_alt"), (canvas) => paintColours(canvas, back, found.pixels[0].length, found.pixels[0][0].length), { class: "pixels" }), t("reconstruction")),
    ),
    quiet(t("reconstruction_note", { y: found.y, x: found.x })),
  ];
}

async function drawImages(app, layer, channel) {
  if (!app.model.has_index) return [quiet(rich("no_index"))];
  const [found, { shape, data }] = await Promise.all([api.unit(layer.name, channel), api.unitPictures(layer.name, channel)]);
  const [, number, , side] = shape;
  const scale = side / app.model.preprocessing.size;
  const rows = ["best", "random", "lowest"].map((row, index) =>
    h("div", { class: "image-row" },
      h("h3", {}, t(`row_${row}`)),
      h("div", {}, found[row].map((peak, place) => {
        const start = (index * number + place) * 3 * side * side;
        return figure(picture(t("top_alt", { label: peak.label, value: written(peak.value, 2) }), (canvas) => paintBoxed(canvas, data.subarray(start, start + 3 * side * side), side, peak.box?.clipped, scale)), peak.label, " ", num(peak.value, 2));
      })),
    ),
  );
  return [found.is_dead && h("p", { class: "flag" }, t("dead_unit")), quiet(t("top_source", found.source)), ...rows];
}

/** Draw a thumbnail with a frame around what the strongest place sees. */
function paintBoxed(canvas, pixels, side, box, scale) {
  paintPixels(canvas, pixels, side, side);
  if (!box || box[2] - box[0] + 1 >= side / scale) return;
  const [top, left, bottom, right] = box.map((pixel) => pixel * scale);
  const context = canvas.getContext("2d");
  context.strokeStyle = "#ffb52e";
  context.strokeRect(left + 0.5, top + 0.5, right - left + scale - 1, bottom - top + scale - 1);
}
