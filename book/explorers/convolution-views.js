/**
 * How the convolution explorer draws: input, kernel and output as grids, the lines between them, and the matrix.
 *
 * Every place in the kernel has a colour of its own, in all of them. What stays while the reader moves from cell to cell
 * is drawn once and copied.
 */
"use strict";

explorers.convolution.makeViews = (explorer, model) => {
  const STRENGTH = 0.65; // of the colour of a lit cell
  const LARGEST = 44, LARGEST_SQUARE = 60, LABELS = 15, LEGIBLE = 15; // CSS pixels: cells, room for an index, the least cell with a number
  const mix = (from, to, share) => from.map((part, i) => Math.round(part + (to[i] - part) * share));
  const css = (rgb) => `rgb(${rgb.join()})`;
  /** Dark or light, whichever stands out more. */
  const ink = ([r, g, b]) => (0.2126 * (r / 255) ** 2.2 + 0.7152 * (g / 255) ** 2.2 + 0.0722 * (b / 255) ** 2.2 > 0.18 ? "#14181d" : "#fff");
  const font = (size, weight = 400) => `${weight} ${size}px ${explorer.colour("font").replace(/^\S+ /, "")}`;

  // --- colours -------------------------------------------------------------------------------------------------------

  const shades = { canvas: [], tint: [], heat: [] };
  /** One [r, g, b] for each place in the kernel. */
  let places = [];

  function chooseColours() {
    for (const name of Object.keys(shades)) shades[name] = explorer.rgb(name);
    if (!model.example) return;
    const { setting, axes } = model.example, k = setting.kernel;
    if (axes === 1) {
      places = Array.from({ length: k }, (_, place) => explorer.rgb(`place-${place % 6}`));
      return;
    }
    // Between the colours of four corners: neighbours are alike, and each is at its place.
    const [topLeft, topRight, lowLeft, lowRight] = [0, 1, 2, 3].map((corner) => explorer.rgb(`corner-${corner}`));
    places = Array.from({ length: k * k }, (_, place) => {
      const down = Math.floor(place / k) / Math.max(k - 1, 1), across = place % k / Math.max(k - 1, 1);
      return mix(mix(topLeft, topRight, across), mix(lowLeft, lowRight, across), down);
    });
  }

  // --- where cells stand -----------------------------------------------------------------------------------------------

  /** The side with the smaller step has the padding around it: a convolution's input, a transposed one's output. */
  const isFine = (name) => name === (model.example.setting.transposed ? "output" : "input");

  /** Where a row's cells stand in one dimension: both rows share the scale of the fine side. */
  function alongLine(width) {
    const { setting } = model.example;
    const { stride, padding, size, outputSize, transposed, span } = setting;
    const [fine, coarse] = transposed ? [outputSize, size] : [size, outputSize];
    const middle = (span - 1) / 2 - padding, half = stride / 2;
    const low = Math.min(-padding - 0.5, middle - half);
    const high = Math.max(fine + padding - 0.5, (coarse - 1) * stride + middle + half);
    const unit = Math.min(LARGEST, (width - 4) / (high - low)), left = (width - unit * (high - low)) / 2;
    const wide = Math.min(LARGEST, unit * stride);
    return (name) => (isFine(name)
      ? { unit, side: unit, centre: (index) => left + (index - low) * unit }
      : { unit, side: wide, centre: (index) => left + (index * stride + middle - low) * unit });
  }

  /** Geometry of a grid on a canvas: `box(row, column)` gives left, top; `rim` cells of padding lie around. */
  function layOut(name, width, height) {
    const { setting, axes } = model.example;
    const count = name === "kernel" ? setting.kernel : setting.sizeOf(name);
    const rim = name !== "kernel" && isFine(name) ? setting.padding : 0;
    if (axes === 1) {
      if (name !== "kernel") {
        const { side, centre } = alongLine(width)(name);
        const high = Math.min(Math.max(side, 22), LARGEST), isAbove = name === "input", top = isAbove ? LABELS : 1;
        const labels = isAbove ? LABELS - 4 : top + high + 11;
        return { count, rows: 1, rim, side, high, x: (column) => centre(column) - side / 2, y: () => top, labels };
      }
      const side = Math.min(LARGEST, (width - 2) / count), left = (width - side * count) / 2;
      return { count, rows: 1, rim: 0, side, high: side, x: (column) => left + column * side, y: () => LABELS, labels: LABELS - 4 };
    }
    const whole = count + 2 * rim;
    let side = Math.min(LARGEST_SQUARE, (Math.min(width, height) - LABELS - 2) / whole);
    if (side > 6) side = Math.floor(side);
    const left = LABELS + 1 + rim * side, top = LABELS + 1 + rim * side;
    const [x, y] = [(column) => left + column * side, (row) => top + row * side];
    return { count, rows: count, rim, side, high: side, x, y, labels: y(-rim) - 4 };
  }

  /** Call back with row, column, left, top of each cell of the grid, the padding too. */
  function eachCell(at, callback) {
    const down = at.rows === 1 && model.example.axes === 1 ? [0, 1] : [-at.rim, at.rows + at.rim];
    for (let row = down[0]; row < down[1]; row += 1) {
      for (let column = -at.rim; column < at.count + at.rim; column += 1) callback(row, column, at.x(column), at.y(row));
    }
  }

  const isInside = (at, row, column) => row >= 0 && row < at.rows && column >= 0 && column < at.count;

  /** What stays while the lit cell moves: drawn at once after a change, and copied from a picture from then on. */
  function backdrop(view, pen, width, height) {
    pen.clearRect(0, 0, width, height);
    if (view.isNew) view.drawBase(pen, width);
    else {
      view.base ??= explorer.picture(width, height, (under) => view.drawBase(under, width));
      pen.drawImage(view.base, 0, 0, width, height);
    }
    view.isNew = false;
  }

  // --- grids -----------------------------------------------------------------------------------------------------------

  /** Input, kernel or output. */
  class Grid {
    constructor(name) {
      this.name = name;
      const view = explorer.canvas(`convolution-${name}`, (pen, width, height) => this.draw(pen, width, height), () => this.renew());
      this.element = view.element;
      this.paint = view.draw;
    }

    /** Which cell is at a place on the canvas, in CSS pixels; -1 for none. */
    find(x, y) {
      if (!this.at) return -1;
      let found = -1;
      eachCell(this.at, (row, column, left, top) => {
        const isIn = x >= left && x < left + this.at.side && y >= top && y < top + this.at.high;
        if (isIn && isInside(this.at, row, column)) found = row * this.at.count + column;
      });
      return found;
    }

    draw(pen, width, height) {
      this.at = layOut(this.name, width, height);
      backdrop(this, pen, width, height);
      pen.textAlign = "center";
      pen.textBaseline = "middle";
      if (this.name === "kernel") this.drawPlaces(pen);
      else this.drawLit(pen);
    }

    renew() {
      Object.assign(this, { base: null, isNew: true });
    }

    drawBase(pen) {
      const { at, name } = this, { canvas, tint, heat } = shades;
      const { values, most, hot } = name === "kernel" ? { values: model.example.kernel, most: 3, hot: false } : model.shown(name);
      const [ground, least, reach] = hot ? [heat, 0.06, 0.8] : [tint, 0.04, 0.3];
      const ramp = Array.from({ length: 17 }, (_, i) => (name === "kernel" ? canvas : mix(canvas, ground, least + reach * i / 16)));
      const fills = ramp.map(css), inks = ramp.map(ink), legible = at.side >= LEGIBLE;
      const size = Math.min(16, at.side * 0.42);
      pen.textAlign = "center";
      pen.textBaseline = "middle";
      pen.font = font(size);
      pen.lineWidth = 1;
      if (at.side <= 6 && at.rows > 1) {
        this.drawPixels(pen, ramp, values, most);
        return;
      }
      eachCell(at, (row, column, left, top) => {
        if (!isInside(at, row, column)) return;
        const value = values[row * at.count + column];
        const step = value === null ? 0 : Math.round(16 * value / most);
        pen.fillStyle = value === null ? css(canvas) : fills[step];
        pen.fillRect(left, top, at.side, at.high);
        if (!legible || value === null) return;
        pen.fillStyle = inks[step];
        pen.fillText(value, left + at.side / 2, top + at.high / 2 + 0.5, at.side - 2);
      });
      this.drawBorders(pen);
      if (legible) this.drawLabels(pen);
    }

    /** Cells too small for numbers and borders. */
    drawPixels(pen, ramp, values, most) {
      const { at } = this, small = new OffscreenCanvas(at.count, at.count), picture = new ImageData(at.count, at.count);
      values.forEach((value, cell) => {
        picture.data.set(value === null ? shades.canvas : ramp[Math.round(16 * value / most)], 4 * cell);
        picture.data[4 * cell + 3] = 255;
      });
      small.getContext("2d").putImageData(picture, 0, 0);
      pen.imageSmoothingEnabled = false;
      pen.drawImage(small, at.x(0), at.y(0), at.side * at.count, at.side * at.count);
      pen.imageSmoothingEnabled = true;
      pen.strokeStyle = explorer.colour("line");
      pen.strokeRect(at.x(0), at.y(0), at.side * at.count, at.side * at.count);
      this.drawOutline(pen);
    }

    /** How far the padding reaches, where its cells are too small to be seen. */
    drawOutline(pen) {
      const { at } = this, whole = at.side * (at.count + 2 * at.rim);
      pen.strokeStyle = explorer.colour("rim");
      if (at.rim) pen.strokeRect(at.x(-at.rim), at.y(at.rows > 1 ? -at.rim : 0), whole, at.rows > 1 ? whole : at.high);
    }

    /** Borders of the cells; the padding's are dashed. */
    drawBorders(pen) {
      const { at, name } = this;
      pen.strokeStyle = explorer.colour("line");
      pen.beginPath();
      if (at.rows > 1) {
        for (let i = 0; i <= at.count; i += 1) {
          pen.moveTo(at.x(i), at.y(0));
          pen.lineTo(at.x(i), at.y(at.count));
          pen.moveTo(at.x(0), at.y(i));
          pen.lineTo(at.x(at.count), at.y(i));
        }
      } else for (let i = 0; i < at.count; i += 1) pen.rect(at.x(i), at.y(0), at.side, at.high);
      pen.stroke();
      if (at.side < LEGIBLE) {
        this.drawOutline(pen);
        return;
      }
      const rim = [];
      eachCell(at, (row, column, left, top) => { if (!isInside(at, row, column)) rim.push([left, top]); });
      if (!rim.length) return;
      pen.beginPath();
      for (const [left, top] of rim) pen.rect(left + 1.5, top + 1.5, at.side - 3, at.high - 3);
      pen.setLineDash([2, 2]);
      pen.strokeStyle = explorer.colour("rim");
      pen.stroke();
      pen.setLineDash([]);
      if (name === "output") return; // what is cut off an output has no number
      pen.fillStyle = explorer.colour("muted");
      for (const [left, top] of rim) pen.fillText("0", left + at.side / 2, top + at.high / 2 + 0.5);
    }

    drawLabels(pen) {
      const { at } = this, every = at.side < 19 ? 2 : 1;
      pen.font = font(10);
      pen.textBaseline = "alphabetic";
      pen.fillStyle = explorer.colour("muted");
      for (let i = 0; i < at.count; i += every) {
        pen.fillText(i, at.x(i) + at.side / 2, at.labels);
        if (at.rows > 1) pen.fillText(i, at.x(-at.rim) - 8, at.y(i) + at.side / 2 + 3.5);
      }
    }

    /** The kernel: a colour for each place, pale where it does not take part. */
    drawPlaces(pen) {
      const { at } = this, taking = new Set(model.products.map(({ place }) => place));
      eachCell(at, (row, column, left, top) => {
        const place = row * at.count + column;
        const strong = model.weight === null ? taking.has(place) : model.weight === place;
        this.cell(pen, left, top, mix(shades.canvas, places[place], strong ? STRENGTH : 0.14), model.example.kernel[place], "");
        if (model.weight === place) this.ring(pen, left, top, at.side, at.high, explorer.colour("text"), 2.5);
      });
    }

    /** The cells that meet the active one, or the active one itself. */
    drawLit(pen) {
      const { at, name } = this, { side, index, weight } = model;
      const { values } = model.shown(name);
      if (name === side) {
        const [row, column] = [Math.floor(index / at.count), index % at.count];
        const [left, top] = [at.x(column), at.y(row)];
        this.ring(pen, left, top, at.side, at.high, explorer.colour("accent"), Math.max(2, Math.min(4, at.side / 8)));
        if (model.pinned && at.side > 8) {
          pen.beginPath();
          pen.arc(left + at.side, top, Math.min(5, at.side / 4), 0, 2 * Math.PI);
          pen.fillStyle = explorer.colour("accent");
          pen.fill();
        }
        return;
      }
      for (const { row, column, place, note } of model.lit) {
        const inside = isInside(at, row, column), left = at.x(column), top = at.y(row);
        const rgb = mix(shades.canvas, places[place], weight !== null && weight !== place ? 0.14 : inside ? STRENGTH : 0.3);
        const value = inside ? values[row * at.count + column] : name === "input" ? 0 : "";
        this.cell(pen, left, top, rgb, value ?? "", inside ? note : "");
        if (weight === place) this.ring(pen, left, top, at.side, at.high, explorer.colour("text"), 2.5);
      }
      if (model.frame) {
        const [row, column, rows, columns] = model.frame;
        const [left, top] = [at.x(column), at.y(row)];
        this.ring(pen, left, top, at.x(column + columns - 1) + at.side - left, at.y(row + rows - 1) + at.high - top, explorer.colour("accent"), 2);
      }
    }

    /** A cell with its number, and a small note in its corner. */
    cell(pen, left, top, rgb, value, note) {
      const { side, high } = this.at;
      pen.fillStyle = css(rgb);
      pen.fillRect(left + 0.5, top + 0.5, side - 1, high - 1);
      if (side < LEGIBLE) return;
      const noted = note && side >= 25;
      pen.fillStyle = ink(rgb);
      pen.font = font(Math.min(16, side * 0.42), 600);
      pen.fillText(value, left + side / 2 - (noted ? side * 0.08 : 0), top + high / 2 + 0.5 - (noted ? high * 0.1 : 0), side - 2);
      if (!noted) return;
      pen.font = font(Math.min(11, Math.max(9, side * 0.3)));
      pen.textAlign = "right";
      pen.fillText(note, left + side - 3, top + high - 7, side - 4);
      pen.textAlign = "center";
    }

    ring(pen, left, top, width, height, colour, thick) {
      pen.lineWidth = thick;
      pen.strokeStyle = colour;
      pen.strokeRect(left, top, width, height);
      pen.lineWidth = 1;
    }
  }

  // --- the lines between input and output, in one dimension --------------------------------------------------------------

  function drawLinks(pen, width, height) {
    pen.clearRect(0, 0, width, height);
    if (!model.example || model.example.axes !== 1) return;
    const line = alongLine(width), above = line("input"), below = line("output");
    const draw = (input, output, place, strong) => {
      pen.beginPath();
      pen.moveTo(above.centre(input), 0);
      pen.lineTo(below.centre(output), height);
      pen.strokeStyle = css(places[place]);
      pen.globalAlpha = strong ? 1 : 0.4;
      pen.lineWidth = strong ? 2.5 : 1;
      pen.stroke();
      pen.globalAlpha = 1;
    };
    model.example.along.input.forEach((taps, input) => { for (const [output, place] of taps) draw(input, output, place, false); });
    for (const { cell, place } of model.products) {
      if (model.weight !== null && model.weight !== place) continue;
      draw(...(model.side === "input" ? [model.index, cell] : [cell, model.index]), place, true);
    }
  }

  const grids = Object.fromEntries(["input", "kernel", "output"].map((name) => [name, new Grid(name)]));
  const links = explorer.canvas("convolution-links", drawLinks);
  links.element.setAttribute("aria-hidden", "true");
  const tools = { STRENGTH, backdrop, mix, css, ink, font, shades, place: (index) => places[index] };
  const matrix = explorers.convolution.makeMatrix(explorer, model, tools);
  const all = [...Object.values(grids), { paint: links.draw, renew: () => {} }, matrix];
  explorer.onRedraw(chooseColours);
  explorer.redraws.unshift(explorer.redraws.pop()); // the colours first, then what is drawn with them

  return {
    ...grids, links: links.element, matrix,
    /** Draw everything anew, after a change of the setting. */
    refresh() {
      chooseColours();
      for (const view of all) view.renew();
      this.paint();
    },
    /** Draw what depends on the active cell. */
    paint() {
      for (const view of all) view.paint();
    },
  };
};
