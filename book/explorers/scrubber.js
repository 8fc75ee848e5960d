/**
 * Recorded runs of a GAN on a ring of Gaussians, side by side, over one timeline.
 *
 * The data are those of book/explorers/ring-runs.json. A frame is 2 n bytes of points, R x R of D's surface and 4 k of
 * arrows, coded as differences to the frame before.
 */
"use strict";

explorers.define("scrubber", async (explorer, data) => {
  const { element } = explorers;
  const size = 2 * data.points + data.resolution ** 2 + 4 * data.arrows;
  const surfaceStart = 2 * data.points, arrowStart = surfaceStart + data.resolution ** 2;
  const layers = { surface: true, arrows: true, real: true, fake: true, good: false };
  const real = explorers.bytes(data.real);
  const steps = data.runs[0].steps;
  const percent = (share) => `${Math.round(100 * share)} %`;
  const whole = new Intl.NumberFormat("en");

  /** The colour of D(x) = index / 255, for the theme of now. */
  let colours = new Uint32Array(256);

  /** Undo the differences: afterwards each frame stands for itself. */
  async function unpack(run) {
    const frames = await explorers.inflate(run.frames);
    if (frames.length !== size * steps.length) throw new explorers.Unable("The data of this figure are damaged.");
    for (let i = size; i < frames.length; i += 1) frames[i] += frames[i - size];
    return frames;
  }

  // --- one run -------------------------------------------------------------------------------------------------------

  /** A run's canvas and numbers. */
  class Pane {
    constructor(run, frames, number) {
      Object.assign(this, { run, frames, number });
      this.map = element("canvas", { width: data.resolution, height: data.resolution });
      this.mapPen = this.map.getContext("2d");
      this.pixels = new ImageData(data.resolution, data.resolution);
      this.canvas = explorer.canvas("explorer-square", (pen, width) => this.draw(pen, width), (width) => this.prepare(width));
      this.canvas.element.setAttribute("role", "img");
      this.numbers = ["Modes", "Good", "D’s loss", "G’s loss"].map((name) => [name, element("dd")]);
      this.element = element("div", { className: "scrubber-pane" },
        element("p", { className: "scrubber-title" }, element("span", { className: `scrubber-line line-${number}` }), run.title),
        element("p", { className: "scrubber-summary" }, run.summary),
        this.canvas.element,
        element("dl", {}, ...this.numbers.map(([name, value]) => element("div", {}, element("dt", {}, name), value))));
    }

    /** Show a frame: the numbers, then the picture. */
    show(index) {
      this.index = index;
      const { modes, good, d_loss: dLoss, g_loss: gLoss } = this.run;
      const texts = [`${modes[index]} of ${data.centres.length}`, percent(good[index]), dLoss[index].toFixed(2), gLoss[index].toFixed(2)];
      this.numbers.forEach(([, value], i) => { value.textContent = texts[i]; });
      this.canvas.draw();
    }

    describe() {
      const { title, modes, good } = this.run;
      return `${title}: ${modes[this.index]} of ${data.centres.length} modes covered, ${percent(good[this.index])} good`;
    }

    /** Draw what stays the same, once: the real points, and one generated point to be stamped. */
    prepare(width) {
      const disc = (pen, x, y, radius) => {
        pen.beginPath();
        pen.arc(x, y, radius, 0, 2 * Math.PI);
        pen.fill();
      };
      this.real = explorer.picture(width, width, (pen) => {
        pen.fillStyle = explorer.colour("real");
        eachPoint(real, width, (x, y) => disc(pen, x, y, Math.max(1.2, width / 200)));
      });
      this.half = Math.max(1.8, width / 130) + 0.6; // of the stamp: an edge tells each point from its neighbours
      this.stamp = explorer.picture(2 * this.half, 2 * this.half, (pen) => {
        pen.fillStyle = explorer.colour("fake-edge");
        disc(pen, this.half, this.half, this.half - 0.2);
        pen.fillStyle = explorer.colour("fake");
        disc(pen, this.half, this.half, this.half - 0.9);
      });
    }

    draw(pen, width) {
      const frame = this.frames.subarray(this.index * size, (this.index + 1) * size);
      pen.fillStyle = explorer.colour("canvas");
      pen.fillRect(0, 0, width, width);
      if (layers.surface) this.drawSurface(pen, width, frame);
      if (layers.good) this.drawGood(pen, width);
      if (layers.real) pen.drawImage(this.real, 0, 0, width, width);
      if (layers.arrows) this.drawArrows(pen, width, frame);
      if (layers.fake) {
        const { stamp, half } = this;
        eachPoint(frame.subarray(0, surfaceStart), width, (x, y) => pen.drawImage(stamp, x - half, y - half, 2 * half, 2 * half));
      }
    }

    drawSurface(pen, width, frame) {
      const n = data.resolution;
      const out = new Uint32Array(this.pixels.data.buffer);
      for (let row = 0; row < n; row += 1) { // row 0 of the data is the lowest, of a picture the highest
        const from = surfaceStart + (n - 1 - row) * n;
        for (let column = 0; column < n; column += 1) out[row * n + column] = colours[frame[from + column]];
      }
      this.mapPen.putImageData(this.pixels, 0, 0);
      // The grid's first and last points lie on the border of the square: half a cell hangs over on each side.
      const cell = width / (n - 1);
      pen.drawImage(this.map, -cell / 2, -cell / 2, n * cell, n * cell);
    }

    drawGood(pen, width) {
      const scale = width / (2 * data.extent);
      pen.beginPath();
      for (const [x, y] of data.centres) {
        const [left, top] = [(x + data.extent) * scale, (data.extent - y) * scale];
        pen.moveTo(left + data.radius_of_good * scale, top);
        pen.arc(left, top, data.radius_of_good * scale, 0, 2 * Math.PI);
      }
      pen.lineWidth = 1.5;
      pen.strokeStyle = explorer.colour("good");
      pen.stroke();
    }

    drawArrows(pen, width, frame) {
      const scale = width / 255, longest = 0.11 * width; // as in dcgan_lib.ring_plots
      pen.beginPath();
      for (let i = arrowStart; i < size; i += 4) {
        const dx = (frame[i + 2] - 128) / 127 * longest, dy = -(frame[i + 3] - 128) / 127 * longest;
        const length = Math.hypot(dx, dy);
        if (length < 2) continue;
        const x = frame[i] * scale, y = (255 - frame[i + 1]) * scale;
        const head = Math.min(5, length / 2) / length;
        const [hx, hy] = [dx * head, dy * head];
        pen.moveTo(x, y);
        pen.lineTo(x + dx, y + dy);
        pen.moveTo(x + dx - hx - 0.6 * hy, y + dy - hy + 0.6 * hx);
        pen.lineTo(x + dx, y + dy);
        pen.lineTo(x + dx - hx + 0.6 * hy, y + dy - hy - 0.6 * hx);
      }
      pen.lineWidth = 1.25;
      pen.strokeStyle = explorer.colour("arrow");
      pen.stroke();
    }
  }

  /** Call back with the place, in CSS pixels, of each packed point: one byte a coordinate. */
  function eachPoint(points, width, callback) {
    const scale = width / 255;
    for (let i = 0; i < points.length; i += 2) callback(points[i] * scale, (255 - points[i + 1]) * scale);
  }

  // --- the chart beneath the slider -----------------------------------------------------------------------------------

  const MARGIN = 11; // half the slider's thumb, so that the cursor stands right below it
  const AXIS = 18; // for the steps beneath
  const PANELS = [
    { key: "modes", title: "Modes covered", top: data.centres.length, most: String(data.centres.length) },
    { key: "good", title: "Share of good samples", top: 1, most: "100 %" },
  ];

  /** Where things stand in a panel of the chart. */
  function scales(width, height, panel) {
    const room = (height - AXIS) / PANELS.length, high = panel * room + 22, low = (panel + 1) * room - 8;
    return {
      high, low,
      x: (index) => MARGIN + index / (steps.length - 1) * (width - 2 * MARGIN),
      y: (value) => low - value / PANELS[panel].top * (low - high),
    };
  }

  /** Draw all of the chart but the cursor. */
  function drawLines(pen, width, height) {
    PANELS.forEach(({ key, title, most }, panel) => {
      const { high, low, x, y } = scales(width, height, panel);
      pen.font = explorer.colour("font");
      pen.fillStyle = explorer.colour("text");
      pen.fillText(title, MARGIN, high - 8);
      pen.textAlign = "right";
      pen.fillStyle = explorer.colour("muted");
      pen.fillText(most, width - MARGIN, high - 8);
      pen.textAlign = "left";
      pen.strokeStyle = explorer.colour("grid");
      pen.strokeRect(MARGIN, high, width - 2 * MARGIN, low - high);
      panes.forEach(({ run, number }) => {
        pen.beginPath();
        run[key].forEach((value, index) => pen.lineTo(x(index), y(value)));
        pen.strokeStyle = explorer.colour(`line-${number}`);
        pen.lineWidth = 1.75;
        pen.setLineDash(number ? [] : [4, 3]);
        pen.stroke();
        pen.setLineDash([]);
        pen.lineWidth = 1;
      });
    });
    // Frames lie as far apart as on the slider, whatever steps are between them: so each label is a frame's own step.
    const { x } = scales(width, height, 0);
    const last = steps.length - 1;
    pen.fillStyle = explorer.colour("muted");
    ["left", "center", "center", "center", "right"].forEach((align, i, all) => {
      const index = Math.round(i / (all.length - 1) * last);
      pen.textAlign = align;
      pen.fillText((i ? "" : "step ") + whole.format(steps[index]), x(index), height - 6);
    });
  }

  let lines = null;

  function drawChart(pen, width, height) {
    pen.clearRect(0, 0, width, height);
    pen.drawImage(lines, 0, 0, width, height);
    PANELS.forEach(({ key }, panel) => {
      const { high, low, x, y } = scales(width, height, panel);
      pen.fillStyle = explorer.colour("text");
      pen.fillRect(x(timeline.index) - 0.625, high, 1.25, low - high);
      panes.forEach(({ run, number }) => {
        pen.beginPath();
        pen.arc(x(timeline.index), y(run[key][timeline.index]), 3.5, 0, 2 * Math.PI);
        pen.fillStyle = explorer.colour(`line-${number}`);
        pen.fill();
      });
    });
  }

  // --- all together ---------------------------------------------------------------------------------------------------

  const unpacked = await Promise.all(data.runs.map(unpack));
  const panes = data.runs.map((run, i) => new Pane(run, unpacked[i], i));
  const timeline = explorer.timeline({
    count: steps.length,
    label: "Training step",
    rate: 20,
    describe: (index) => `Step ${whole.format(steps[index])} of ${whole.format(steps.at(-1))}`,
    onChange: show,
  });
  const chart = explorer.canvas("scrubber-chart", drawChart, (width, height) => {
    lines = explorer.picture(width, height, (pen) => drawLines(pen, width, height));
  });
  chart.element.setAttribute("aria-hidden", "true"); // the slider does the same, and the numbers are above
  explorers.onDrag(chart.element, (share, width) => {
    timeline.go((share * width - MARGIN) / (width - 2 * MARGIN) * (steps.length - 1));
  });

  function show(index) {
    for (const pane of panes) pane.show(index);
    chart.draw();
    explorer.announce([timeline.describe(index), ...panes.map((pane) => pane.describe())].join(". "));
    clearTimeout(show.later);
    show.later = setTimeout(label, 300);
  }

  function label() {
    for (const pane of panes) pane.canvas.element.setAttribute("aria-label", pane.describe());
  }

  const layer = (name, text) => explorers.toggle(text, layers[name], (on) => {
    layers[name] = on;
    for (const pane of panes) pane.canvas.draw();
  }, name !== "surface" && `swatch-${name}`);

  explorer.onRedraw(() => {
    const [low, middle, high] = ["surface-low", "canvas", "surface-high"].map((name) => explorer.rgb(name));
    colours = colours.map((_, i) => {
      const end = i < 127.5 ? low : high, share = Math.abs(i / 127.5 - 1);
      const [r, g, b] = middle.map((m, c) => Math.round(m + (end[c] - m) * share));
      return (255 << 24 | b << 16 | g << 8 | r) >>> 0;
    });
  });
  explorer.redraws.unshift(explorer.redraws.pop()); // the colours first, then what is drawn with them

  explorer.stage.append(
    element("div", { className: "scrubber-panes" }, ...panes.map((pane) => pane.element)),
    element("div", { className: "scrubber-legend" },
      layer("fake", "Generated"), layer("real", "Real"), layer("arrows", "G’s gradients"), layer("good", "Where a point is good"),
      element("span", {}, layer("surface", "D’s surface:"),
        element("span", { className: "scrubber-scale" }, "generated", element("span", { className: "scrubber-bar" }), "real"))),
    timeline.element, chart.element);
  for (const pane of panes) pane.show(0);
  label();
});
