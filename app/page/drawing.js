/**
 * Numbers -> pixels, by the same laws as the pictures of the API: zero keeps its place, nothing is smoothed unless it
 * says so, maps that are all zero, constant or not finite are marked. The colour tables are those of model/drawing/colours.py.
 */

import { h, written } from "./page.js";

export const COLOURS = ["red", "green", "blue"]; // the channels of a picture, as words.js names them
const MARK = [200, 0, 160]; // what is not finite

/** 256 RGB colours from near-black violet (0) over teal to light yellow (the maximum). */
export const SEQUENTIAL = table(256, (index) => {
  const position = index / 255;
  return [
    0.16 + 0.8 * position,
    interpolate(position, [0, 0.25, 0.6, 0.85, 1], [0.05, 0.11, 0.1, 0.14, 0.11]),
    interpolate(position, [0, 0.5, 1], [295, 200, 105]),
  ];
});

/** 255 RGB colours from blue (the negative limit) over neutral light grey (0, index 127) to red. */
export const DIVERGING = table(255, (index) => {
  const distance = Math.abs(index - 127) / 127;
  return [0.96 - 0.52 * distance, 0.17 * distance, index < 127 ? 258 : 32];
});

/** @param {(index: number) => number[]} colour lightness, chroma and hue in OKLab */
function table(size, colour) {
  const rgb = new Uint8ClampedArray(3 * size);
  for (let index = 0; index < size; index += 1) rgb.set(toSrgb(...colour(index)), 3 * index);
  return rgb;
}

/** Source of the two matrices: Ottosson, A perceptual color space for image processing, 2020. */
function toSrgb(lightness, chroma, hue) {
  const a = chroma * Math.cos((hue * Math.PI) / 180);
  const b = chroma * Math.sin((hue * Math.PI) / 180);
  const [l, m, s] = [
    lightness + 0.3963377774 * a + 0.2158037573 * b,
    lightness - 0.1055613458 * a - 0.0638541728 * b,
    lightness - 0.0894841775 * a - 1.291485548 * b,
  ].map((cone) => cone ** 3);
  return [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s,
  ].map((light) => {
    const linear = Math.min(1, Math.max(0, light));
    return Math.round(255 * (linear <= 0.0031308 ? 12.92 * linear : 1.055 * linear ** (1 / 2.4) - 0.055));
  });
}

function interpolate(position, knots, values) {
  const right = Math.max(1, knots.findIndex((knot) => knot >= position));
  const share = (position - knots[right - 1]) / (knots[right] - knots[right - 1]);
  return values[right - 1] + share * (values[right] - values[right - 1]);
}

/** The colour of one number: the neutral middle for zero if `signed`, else the darkest. */
export function colourOf(value, limit, signed) {
  if (!Number.isFinite(value)) return MARK;
  const share = Math.min(1, Math.max(-1, value / (limit || 1)));
  const at = 3 * (signed ? Math.round(127 + 127 * share) : Math.round(255 * Math.max(0, share)));
  const colours = signed ? DIVERGING : SEQUENTIAL;
  return [colours[at], colours[at + 1], colours[at + 2]];
}

/** The largest absolute finite value. */
export function limitOf(values) {
  let limit = 0;
  for (const value of values) {
    const size = Math.abs(value);
    if (size > limit && size < Infinity) limit = size;
  }
  return limit;
}

/** The smallest and the largest finite value. */
export function rangeOf(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low <= high ? [low, high] : [NaN, NaN];
}

export function isSigned(values) {
  for (const value of values) if (value < 0) return true;
  return false;
}

/** What is wrong with a map, as the API says it; "" for a live one. */
export function flagOf(values) {
  let same = true;
  for (const value of values) {
    if (!Number.isFinite(value)) return "not finite";
    if (value !== values[0]) same = false;
  }
  if (!same || values.length === 0) return "";
  return values[0] === 0 ? "all zero" : values.length > 1 ? "constant" : "";
}

/** One channel of an array (C, H, W), as a view. */
export function channelOf({ shape: [, height, width], data }, channel) {
  return data.subarray(channel * height * width, (channel + 1) * height * width);
}

/** A canvas of h x w pixels whose colours `colour(index)` gives; it is enlarged by the style sheet, in squares. */
function paint(canvas, height, width, colour) {
  canvas.width = width;
  canvas.height = height;
  const picture = new ImageData(width, height);
  for (let index = 0; index < height * width; index += 1) {
    const [red, green, blue] = colour(index);
    picture.data.set([red, green, blue, 255], 4 * index);
  }
  canvas.getContext("2d").putImageData(picture, 0, 0);
  return canvas;
}

/** Draw a map. @param {ArrayLike<number>} values (h, w) */
export function paintMap(canvas, values, height, width, { limit = limitOf(values), signed = isSigned(values) } = {}) {
  return paint(canvas, height, width, (index) => colourOf(values[index], limit, signed));
}

/** Draw an RGB picture. @param {Uint8Array} pixels (3, h, w) */
export function paintPixels(canvas, pixels, height, width) {
  const plane = height * width;
  return paint(canvas, height, width, (index) => [pixels[index], pixels[plane + index], pixels[2 * plane + index]]);
}

/** Draw signed colours, zero at mid-grey and the three channels scaled together. @param values (3, h, w) */
export function paintColours(canvas, values, height, width, limit = limitOf(values)) {
  const plane = height * width;
  const level = (value) => 127.5 + (127.5 * value) / (limit || 1);
  return paint(canvas, height, width, (index) => [0, 1, 2].map((channel) => level(values[channel * plane + index])));
}

/** A picture element with its name for those who do not see it. */
export function picture(alt, draw, attributes = {}) {
  const canvas = h("canvas", { role: "img", "aria-label": alt, ...attributes });
  draw(canvas);
  return canvas;
}

/** A colour bar with its ends and its zero named. */
export function legend({ signed, limit = null, low, high }) {
  const colours = signed ? DIVERGING : SEQUENTIAL;
  const bar = h("canvas", { "aria-hidden": "true" });
  paint(bar, 1, colours.length / 3, (index) => colours.subarray(3 * index, 3 * index + 3));
  const text = limit === null ? "" : written(limit, 3);
  const ends = signed ? [low ?? `−${text}`, "0", high ?? text] : [low ?? "0", "", high ?? text];
  return h("div", { class: "legend" }, bar, h("div", { class: "ends" }, ends.map((end) => h("span", {}, end))));
}

/** Make a canvas as sharp as the screen; returns its context, in CSS pixels. */
export function sharpen(canvas, width, height) {
  const ratio = devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.imageSmoothingEnabled = false;
  return context;
}

/** The colours of the page, for what is drawn on a canvas. */
export function inks() {
  const probe = document.body.appendChild(h("span", { hidden: true }));
  const colour = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color; // resolved for light or dark
  };
  const found = { ink: colour("ink"), muted: colour("muted"), line: colour("line"), glow: colour("glow") };
  probe.remove();
  return { ...found, mono: getComputedStyle(document.documentElement).getPropertyValue("--mono") };
}

/**
 * Draw a small grid of numbers in the diverging table, written out where they fit.
 *
 * @param {CanvasRenderingContext2D} context
 * @param {(row: number, column: number) => number} valueAt
 */
export function drawGrid(context, rows, columns, valueAt, { left, top, cell, limit, digits, font, outside, colour }) {
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.font = font;
  const isWritten = cell >= 30;
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      const value = valueAt(row, column);
      const [red, green, blue] = colour ? colour(value) : colourOf(value, limit, true);
      const x = left + column * cell;
      const y = top + row * cell;
      context.fillStyle = `rgb(${red} ${green} ${blue})`;
      context.fillRect(x, y, cell - 1, cell - 1);
      if (outside?.(row, column)) hatch(context, x, y, cell - 1);
      if (!isWritten) continue;
      context.fillStyle = 0.299 * red + 0.587 * green + 0.114 * blue > 140 ? "#14161a" : "#ffffff";
      context.fillText(Number.isFinite(value) ? value.toFixed(digits).replace("-", "−") : written(value), x + (cell - 1) / 2, y + cell / 2);
    }
  }
}

/** Mark a cell of the padding: it is not there in the map, the layer only reads it so. */
function hatch(context, x, y, size) {
  context.strokeStyle = "rgb(120 120 130 / 0.7)";
  context.lineWidth = 1;
  context.beginPath();
  for (let offset = 4; offset < size; offset += 6) {
    context.moveTo(x, y + offset);
    context.lineTo(x + offset, y);
  }
  context.stroke();
}
