/**
 * What layers compute, done again here so that the torch needs no request to move. The service checks every result once
 * the torch rests. Frameworks compute cross-correlations: no kernel is flipped. Knows nothing of the page or the API.
 *
 * @typedef {Object} Layer a row of GET /v1/layers: `name`, `type`, `inputs`, `in_shapes`, `out_shape`, (C, H, W) for maps or
 *   (K) for vectors, `kernel_size`, (y, x) as `stride`, `padding` and `dilation` are, `views` and more
 */

const ACTIVATION = /^(relu|relu6|leaky_?relu|elu|gelu|silu|hardswish|hardsigmoid|sigmoid|tanh|mish|softplus)$/i;
const KINDS = [
  ["convolution", /^Conv2d$/],
  ["batch_norm", /^BatchNorm2d$/],
  ["activation", ACTIVATION],
  ["max_pool", /^MaxPool2d$/],
  ["average_pool", /^AvgPool2d$/],
  ["global_pool", /^(AdaptiveAvgPool2d|adaptive_avg_pool2d|mean)$/],
  ["linear", /^Linear$/],
  ["softmax", /^softmax$/],
  ["sum", /^add$/],
  ["product", /^mul$/],
];

/** Which arithmetic a layer does; "other" where it only passes numbers on, or we do not know it. */
export function kindOf(layer) {
  return KINDS.find(([, type]) => type.test(layer.type))?.[0] ?? "other";
}

export const isMaps = (layer) => layer.out_shape.length === 3;
export const isVector = (layer) => layer.out_shape.length === 1;
/** Whether it gives maps of more than one position. */
export const hasPlaces = (layer) => isMaps(layer) && layer.out_shape[1] * layer.out_shape[2] > 1;

/**
 * Cut the network into blocks: each begins with a layer that multiplies, and holds all up to the next.
 *
 * @param {Layer[]} layers in the order they run
 * @returns {Layer[][]}
 */
export function blocksOf(layers) {
  const blocks = [];
  for (const layer of layers) {
    if (blocks.length === 0 || layer.multiply_adds > 0) blocks.push([]);
    blocks.at(-1).push(layer);
  }
  return blocks;
}

/** The layer that shows best what a block made of the image: its activation, else its last maps. */
export function faceOf(block) {
  const maps = block.filter((layer) => layer.views.includes("activations"));
  const placed = maps.filter(hasPlaces);
  return placed.findLast((layer) => kindOf(layer) === "activation") ?? placed.at(-1) ?? maps.at(-1) ?? block[0];
}

/** The batch norm and the activation that are read by nobody else on the way, in order. */
export function followers(layers, layer) {
  const found = [];
  for (let last = layer; ; ) {
    const readers = layers.filter((one) => one.inputs.includes(last.name));
    const kind = readers.length === 1 && kindOf(readers[0]);
    if (kind !== "activation" && !(kind === "batch_norm" && last === layer)) return found;
    found.push(readers[0]);
    if (kind === "activation") return found;
    last = readers[0];
  }
}

/** Network input (3, S, S) in float32, as the service makes it of the pixels. */
export function normalise({ shape, data }, { mean, std }) {
  const plane = shape[1] * shape[2];
  const round = Math.fround;
  const values = new Float32Array(data.length);
  for (let index = 0; index < data.length; index += 1) {
    const channel = Math.floor(index / plane);
    values[index] = round(round(round(data[index] / 255) - round(mean[channel])) / round(std[channel]));
  }
  return { shape, data: values };
}

/** First input row (axis 0) or column (axis 1) under the window, and the step from one to the next. */
const placesUnder = (layer, position, axis) =>
  Array.from({ length: layer.kernel_size[axis] }, (_, offset) =>
    position * layer.stride[axis] - layer.padding[axis] + offset * layer.dilation[axis],
  );

/** What is under the window of a layer: `patch` (C, kernel height, kernel width), `outside` in the padding, `rows`, `columns`. */
function under(layer, { shape: [, height, width], data }, first, channels, y, x, outside) {
  const rows = placesUnder(layer, y, 0);
  const columns = placesUnder(layer, x, 1);
  const patch = new Float64Array(channels * rows.length * columns.length);
  let at = 0;
  for (let channel = first; channel < first + channels; channel += 1) {
    for (const row of rows) {
      for (const column of columns) {
        const isInside = row >= 0 && row < height && column >= 0 && column < width;
        patch[at] = isInside ? data[(channel * height + row) * width + column] : outside;
        at += 1;
      }
    }
  }
  return { patch, rows, columns };
}

/**
 * patch * weights = products; their sum + bias = total.
 *
 * @param {Layer} layer
 * @param {Numbers} input maps (C, H, W)
 * @param {ArrayLike<number>} weights of the channel's filter, (C / groups, kernel height, kernel width)
 */
export function convolution(layer, input, weights, bias, channel, y, x) {
  const inputs = layer.in_shapes[0][0] / layer.groups;
  const first = Math.floor(channel / (layer.out_shape[0] / layer.groups)) * inputs;
  const window = under(layer, input, first, inputs, y, x, 0);
  const products = new Float64Array(window.patch.length);
  const sums = new Float64Array(inputs);
  const size = products.length / inputs;
  let sum = 0;
  for (let one = 0; one < inputs; one += 1) {
    for (let at = one * size; at < (one + 1) * size; at += 1) {
      products[at] = window.patch[at] * weights[at];
      sums[one] += products[at];
    }
    sum += sums[one];
  }
  return { ...window, weights, products, sums, first, sum, bias, total: sum + bias };
}

/** @param {{mean: number, variance: number, eps: number, weight: number, bias: number}} kept from training */
export function batchNorm(value, kept) {
  return ((value - kept.mean) / Math.sqrt(kept.variance + kept.eps)) * kept.weight + kept.bias;
}

/** The largest of the patch, and which it is. */
export function maxPool(layer, input, channel, y, x) {
  const window = under(layer, input, channel, 1, y, x, -Infinity);
  const winner = window.patch.indexOf(Math.max(...window.patch));
  return { ...window, winner, total: window.patch[winner] };
}

/** The mean of the patch; `divisor` says over how many, padding counted or not, as the layer is set. */
export function averagePool(layer, input, channel, y, x, divisor) {
  const window = under(layer, input, channel, 1, y, x, 0);
  const sum = window.patch.reduce((total, value) => total + value, 0);
  return { ...window, sum, divisor, total: sum / divisor };
}

/** The pixels that a position sees, by its layer's receptive field; both ends included, not clipped. */
export function seenBy({ size, jump, start }, y, x) {
  const low = (axis, position) => Math.round(start[axis] + position * jump[axis] - (size[axis] - 1) / 2);
  const [top, left] = [low(0, y), low(1, x)];
  return { top, left, bottom: top + size[0] - 1, right: left + size[1] - 1 };
}

/** The part of a box that is in the image; null if none is. */
export function clip({ top, left, bottom, right }, side) {
  const box = { top: Math.max(0, top), left: Math.max(0, left), bottom: Math.min(side - 1, bottom), right: Math.min(side - 1, right) };
  return box.top <= box.bottom && box.left <= box.right ? box : null;
}

/** Where an array is largest. */
export function peakOf(values) {
  let best = 0;
  for (let index = 1; index < values.length; index += 1) if (values[index] > values[best]) best = index;
  return best;
}

/** The channels of maps (C, H, W), the most active first: by their mean absolute value. */
export function mostActive({ shape: [channels, height, width], data }) {
  const plane = height * width;
  const activity = new Float64Array(channels);
  for (let index = 0; index < data.length; index += 1) activity[Math.floor(index / plane)] += Math.abs(data[index]);
  return Array.from(activity.keys()).sort((one, other) => activity[other] - activity[one] || one - other);
}
