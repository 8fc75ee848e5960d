/**
 * Convolution arithmetic in whole numbers, without a page: what dcgan_lib.convolution and
 * dcgan_lib.convolution_examples say in Python, in the same words and with the same numbers. A test compares them.
 *
 * A setting is an object with the names of Python's arguments: size, kernel, stride, padding, dilation,
 * output_padding (whole numbers) and transposed.
 */
"use strict";

explorers.convolution = (() => {
  const RULES = {
    whole: "{name}={value} must be a whole number",
    positive: "{name}={value} must be at least 1",
    not_negative: "{name}={value} must not be negative",
    kernel_fits: "kernel={kernel} with dilation={dilation} spans {span} pixels; it must not span more than the "
      + "padded input, {padded} pixels (size={size}, padding={padding})",
    no_output_padding: "output_padding={output_padding} must be 0: only a transposed convolution has one",
    output_padding: "output_padding={output_padding} must be smaller than stride={stride} or dilation={dilation}",
    output_left: "padding={padding} cuts {cut} pixels from an output of {full}; it must leave at least 1",
  };
  const LIMITS = {
    size: [1, 16], kernel: [1, 7], stride: [0, 4], padding: [0, 6], dilation: [0, 3], output_padding: [0, 4],
  };
  const DEFAULTS = { stride: 1, padding: 0, output_padding: 0, dilation: 1 };
  /** The size formula, [in PyTorch's words, in the letters of Dumoulin and Visin]. */
  const FORMULAS = {
    false: [
      "⌊(size + 2·padding − dilation·(kernel − 1) − 1) / stride⌋ + 1",
      "o = ⌊(i + 2p − k − (k − 1)(d − 1)) / s⌋ + 1",
    ],
    true: [
      "(size − 1)·stride − 2·padding + dilation·(kernel − 1) + output_padding + 1",
      "o′ = s(i′ − 1) + a + k + (k − 1)(d − 1) − 2p",
    ],
  };
  const fill = (rule, numbers) => RULES[rule].replace(/\{(\w+)\}/g, (_, name) => numbers[name]);
  const spanOf = (kernel, dilation) => dilation * (kernel - 1) + 1;
  const complete = (setting) => ({ ...DEFAULTS, transposed: false, ...setting });

  /** Say which rule a setting breaks, the first of them, or null if it is possible. */
  function explainImpossible(setting) {
    const given = complete(setting);
    const { size, kernel, stride, padding, dilation, output_padding, transposed } = given;
    const positive = { size, kernel, stride, dilation };
    for (const [rule, low, values] of [["positive", 1, positive], ["not_negative", 0, { padding, output_padding }]]) {
      for (const [name, value] of Object.entries(values)) {
        if (!Number.isInteger(value)) return fill("whole", { name, value });
        if (value < low) return fill(rule, { name, value });
      }
    }
    const span = spanOf(kernel, dilation), padded = size + 2 * padding, cut = 2 * padding;
    const full = (size - 1) * stride + span + output_padding;
    let rule = null;
    if (!transposed && output_padding) rule = "no_output_padding";
    else if (!transposed && span > padded) rule = "kernel_fits";
    else if (transposed && output_padding >= Math.max(stride, dilation)) rule = "output_padding";
    else if (transposed && full <= cut) rule = "output_left";
    return rule && fill(rule, { ...given, span, padded, full, cut });
  }

  /** A possible setting along one axis: sizes, and which cells meet. A tap is [cell, place in the kernel]. */
  class Setting {
    constructor(setting) {
      const problem = explainImpossible(setting);
      if (problem) throw new RangeError(problem);
      Object.assign(this, complete(setting));
      this.span = spanOf(this.kernel, this.dilation);
      this.outputSize = this.transposed
        ? (this.size - 1) * this.stride - 2 * this.padding + this.span + this.output_padding
        : Math.floor((this.size + 2 * this.padding - this.span) / this.stride) + 1;
    }

    /** The size formula with the numbers in it. */
    get sizeFormula() {
      const { size, stride, padding, dilation, output_padding, outputSize } = this;
      const kernel = `${dilation}·(${this.kernel} − 1)`;
      return this.transposed
        ? `(${size} − 1)·${stride} − 2·${padding} + ${kernel} + ${output_padding} + 1 = ${outputSize}`
        : `⌊(${size} + 2·${padding} − ${kernel} − 1) / ${stride}⌋ + 1 = ${outputSize}`;
    }

    sizeOf(side) {
      return side === "input" ? this.size : this.outputSize;
    }

    /** The side whose cells have a window or a stamp: a convolution's outputs, a transposed one's inputs. */
    get coarse() {
      return this.transposed ? "input" : "output";
    }

    touchedInputs(output) {
      return this.transposed ? this.backwards(output, this.size) : this.forwards(output, this.size);
    }

    touchedOutputs(cell) {
      return this.transposed ? this.forwards(cell, this.outputSize) : this.backwards(cell, this.outputSize);
    }

    /** What a cell of a side meets on the other. */
    taps(side, index) {
      return side === "output" ? this.touchedInputs(index) : this.touchedOutputs(index);
    }

    /** The window or stamp of a cell of the coarse side, with what falls on the padding. */
    stamp(cell) {
      return Array.from({ length: this.kernel }, (_, place) => [cell * this.stride - this.padding + place * this.dilation, place]);
    }

    forwards(cell, limit) {
      return this.stamp(cell).filter(([other]) => other >= 0 && other < limit);
    }

    backwards(cell, limit) {
      const taps = [];
      for (let place = 0; place < this.kernel; place += 1) {
        const distance = cell + this.padding - place * this.dilation;
        const origin = distance / this.stride;
        if (distance >= 0 && Number.isInteger(origin) && origin < limit) taps.push([origin, place]);
      }
      return taps;
    }
  }

  /** Small numbers that look random and are the same everywhere, row by row; with seed 0 all are 1. */
  function exampleValues(size, axes, seed, kernel) {
    const values = [];
    for (let row = 0; row < (axes === 2 ? size : 1); row += 1) {
      for (let column = 0; column < size; column += 1) {
        const mixed = (73 * row + 179 * column + 283 * seed + (kernel ? 131 : 37)) ** 2 % 1009;
        values.push(seed === 0 ? 1 : 1 + mixed % (kernel ? 3 : 5));
      }
    }
    return values;
  }

  /** A setting with numbers in it. Grids are arrays, row by row; a cell is its index in them. */
  class Example {
    constructor(setting, axes, seed) {
      Object.assign(this, { setting: new Setting(setting), axes, seed });
      this.input = exampleValues(this.setting.size, axes, seed, false);
      this.kernel = exampleValues(this.setting.kernel, axes, seed, true);
      // Along one axis, once: both axes are alike.
      this.along = Object.fromEntries(["input", "output"].map((side) => [side,
        Array.from({ length: this.setting.sizeOf(side) }, (_, index) => this.setting.taps(side, index))]));
      this.output = this.sumUpTo(this.input.length - 1);
      const counts = this.along.output.map((taps) => taps.length);
      this.overlaps = axes === 1 ? counts : counts.flatMap((high) => counts.map((wide) => high * wide));
    }

    count(side) {
      return this.setting.sizeOf(side) ** this.axes;
    }

    /** [row, column] of a cell, or [index] in a sequence. */
    position(side, index) {
      const size = this.setting.sizeOf(side);
      return this.axes === 1 ? [index] : [Math.floor(index / size), index % size];
    }

    /** Call back with output, input and place in the kernel of every product that inputs up to one take part in. */
    eachProduct(last, callback) {
      const { outputSize, kernel, size } = this.setting, taps = this.along.input.map((found) => found.flat());
      for (let cell = 0; cell <= last; cell += 1) {
        const down = this.axes === 1 ? [0, 0] : taps[Math.floor(cell / size)], across = taps[cell % size];
        for (let i = 0; i < down.length; i += 2) {
          const start = down[i] * outputSize, from = down[i + 1] * kernel;
          for (let j = 0; j < across.length; j += 2) callback(start + across[j], cell, from + across[j + 1]);
        }
      }
    }

    /** The output as far as the inputs up to one have been added. */
    sumUpTo(last) {
      const { input, kernel } = this, out = new Array(this.count("output")).fill(0);
      this.eachProduct(last, (output, cell, place) => { out[output] += input[cell] * kernel[place]; });
      return out;
    }

    /** All products of a cell by place in the kernel: {cell, place, value, weight}, `cell` on the other side. */
    products(side, index) {
      const { input, kernel, setting } = this;
      const width = setting.sizeOf(side === "input" ? "output" : "input");
      const [row, column] = this.axes === 1 ? [null, index] : this.position(side, index);
      const made = [];
      for (const [high, up] of row === null ? [[0, 0]] : this.along[side][row]) {
        for (const [wide, across] of this.along[side][column]) {
          const cell = high * width + wide, place = up * setting.kernel + across;
          made.push({ cell, place, value: input[side === "output" ? cell : index], weight: kernel[place] });
        }
      }
      return made;
    }

    nameOf(side, index) {
      const position = this.position(side, index);
      return this.axes === 1 ? `${position[0]}` : `(${position.join(", ")})`;
    }

    /** The arithmetic of a cell in parts: before, [place, term] pairs, what stands between them, after. */
    sentence(side, index) {
      const products = this.products(side, index), count = products.length;
      if (side === "output") {
        const name = `Output ${this.nameOf(side, index)} = `;
        if (!count) return { before: `${name}0: no input reaches it.`, terms: [], between: "", after: "" };
        const terms = products.map(({ place, value, weight }) => [place, `${value}·${weight}`]);
        return { before: name, terms, between: " + ", after: ` = ${this.output[index]}` };
      }
      const name = `Input ${this.nameOf(side, index)} = ${this.input[index]}`;
      if (!count) return { before: `${name} reaches no output.`, terms: [], between: "", after: "" };
      const terms = products.map(({ place, value, weight }) => [place, `${value}·${weight} = ${value * weight}`]);
      return { before: `${name} adds to ${count} output${count > 1 ? "s" : ""}: `, terms, between: ", ", after: "" };
    }
  }

  /** The line of PyTorch that makes a layer of one channel. */
  function pytorchLine(setting, axes) {
    const given = complete(setting);
    const named = Object.keys(DEFAULTS).filter((name) => given[name] !== DEFAULTS[name]).map((name) => `${name}=${given[name]}`);
    return `nn.Conv${given.transposed ? "Transpose" : ""}${axes}d(${["1", "1", given.kernel, ...named, "bias=False"].join(", ")})`;
  }

  return {
    RULES, LIMITS, FORMULAS, explainImpossible, Setting, Example, exampleValues, pytorchLine,
  };
})();
