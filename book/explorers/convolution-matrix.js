/**
 * The matrix of the convolution explorer: a row for each output cell, a column for each input cell, the active one lit.
 *
 * In two dimensions the cells of a grid are counted row by row, so a 16 x 16 image has 256 columns; the entries are
 * then painted as pixels.
 */
"use strict";

explorers.convolution.makeMatrix = (explorer, model, { STRENGTH, backdrop, mix, css, ink, font, shades, place }) => {
  const LARGEST = 26, LEGIBLE = 15, LABELS = 18;

  class Matrix {
    constructor() {
      const view = explorer.canvas("convolution-matrix", (pen, width, height) => this.draw(pen, width, height), () => this.renew());
      this.element = view.element;
      this.paint = view.draw;
    }

    /** Cells are square while there is room; those of a larger matrix are pressed. */
    layOut(width, height) {
      const rows = model.example.count("output"), columns = model.example.count("input");
      const [wide, high] = [width - LABELS - 2, height - LABELS - 2];
      let [unitX, unitY] = [Math.min(LARGEST, wide / columns), Math.min(LARGEST, high / rows)];
      const press = Math.min(unitX, unitY) < 1.5 ? 16 : 4; // what is less than a pixel cannot be seen as a cell anyway
      [unitX, unitY] = [Math.min(unitX, press * unitY), Math.min(unitY, press * unitX)];
      if (Math.min(unitX, unitY) > 8) unitX = unitY = Math.floor(Math.min(unitX, unitY));
      const left = LABELS + (wide - unitX * columns) / 2;
      return { rows, columns, unitX, unitY, left, top: LABELS, right: left + unitX * columns, bottom: LABELS + unitY * rows };
    }

    /** [output, input] at a place on the canvas, or null. */
    find(x, y) {
      const { at } = this;
      if (!at || x < at.left || x >= at.right || y < at.top || y >= at.bottom) return null;
      return [Math.floor((y - at.top) / at.unitY), Math.floor((x - at.left) / at.unitX)];
    }

    draw(pen, width, height) {
      this.at = this.layOut(width, height);
      backdrop(this, pen, width, height);
      const { at } = this, { side, index } = model, isRow = side === "output";
      pen.textAlign = "center";
      pen.textBaseline = "middle";
      for (const { cell, place: index_, weight } of model.products) {
        const [row, column] = isRow ? [index, cell] : [cell, index];
        const strong = model.weight === null || model.weight === index_;
        const rgb = mix(shades.canvas, place(index_), strong ? STRENGTH : 0.3);
        pen.fillStyle = css(rgb);
        const [left, top] = [at.left + column * at.unitX, at.top + row * at.unitY];
        pen.fillRect(left, top, Math.max(at.unitX, 1.5), Math.max(at.unitY, 1.5));
        if (Math.min(at.unitX, at.unitY) >= LEGIBLE) this.write(pen, weight, left, top, ink(rgb), 600);
      }
      pen.strokeStyle = explorer.colour("accent");
      pen.lineWidth = Math.min(2.5, 1 + at.unitX / 6);
      if (isRow) pen.strokeRect(at.left - 1, at.top + index * at.unitY - 1, at.right - at.left + 2, Math.max(at.unitY, 1.5) + 2);
      else pen.strokeRect(at.left + index * at.unitX - 1, at.top - 1, Math.max(at.unitX, 1.5) + 2, at.bottom - at.top + 2);
    }

    write(pen, text, left, top, colour, weight = 400) {
      pen.font = font(Math.min(13, this.at.unitX * 0.55), weight);
      pen.fillStyle = colour;
      pen.fillText(text, left + this.at.unitX / 2, top + this.at.unitY / 2 + 0.5);
    }

    renew() {
      Object.assign(this, { base: null, isNew: true });
    }

    drawBase(pen, width) {
      const { at } = this, { example } = model;
      this.drawPixels(pen, pen.canvas.width / width);
      pen.lineWidth = 1;
      pen.strokeStyle = explorer.colour("line");
      pen.strokeRect(at.left - 0.5, at.top - 0.5, at.right - at.left + 1, at.bottom - at.top + 1);
      if (Math.min(at.unitX, at.unitY) >= 12) this.drawBorders(pen);
      pen.textAlign = "center";
      pen.textBaseline = "middle";
      if (Math.min(at.unitX, at.unitY) >= LEGIBLE && at.rows * at.columns < 1500) {
        const weights = new Map();
        example.eachProduct(at.columns - 1, (row, column, index) => weights.set(row * at.columns + column, example.kernel[index]));
        for (let entry = 0; entry < at.rows * at.columns; entry += 1) {
          const [left, top] = [at.left + entry % at.columns * at.unitX, at.top + Math.floor(entry / at.columns) * at.unitY];
          this.write(pen, weights.get(entry) ?? 0, left, top, explorer.colour(weights.has(entry) ? "text" : "faint"));
        }
      }
      pen.font = font(11);
      pen.textBaseline = "alphabetic";
      pen.fillStyle = explorer.colour("muted");
      pen.fillText(`${at.columns} inputs`, (at.left + at.right) / 2, at.top - 6);
      pen.save();
      pen.translate(at.left - 6, (at.top + at.bottom) / 2);
      pen.rotate(-Math.PI / 2);
      pen.fillText(`${at.rows} outputs`, 0, 0);
      pen.restore();
    }

    /** All entries, pale, as pixels: thousands of them take a millisecond. */
    drawPixels(pen, sharpness) {
      const { at } = this, { example } = model, tiny = Math.min(at.unitX, at.unitY) < 1.5;
      const ratio = tiny ? 1 : sharpness, [stepX, stepY] = [at.unitX * ratio, at.unitY * ratio];
      const width = Math.ceil((at.right - at.left) * ratio), height = Math.ceil((at.bottom - at.top) * ratio);
      const picture = new ImageData(width, height), out = new Uint32Array(picture.data.buffer);
      const colours = example.kernel.map((_, index) => {
        const [r, g, b] = mix(shades.canvas, place(index), tiny ? 0.6 : 0.42);
        return (255 << 24 | b << 16 | g << 8 | r) >>> 0;
      });
      example.eachProduct(at.columns - 1, (row, column, index) => {
        const left = Math.floor(column * stepX), top = Math.floor(row * stepY);
        const right = Math.max(left + 1, Math.floor((column + 1) * stepX)), bottom = Math.max(top + 1, Math.floor((row + 1) * stepY));
        for (let y = top; y < bottom; y += 1) {
          for (let x = left; x < right; x += 1) out[y * width + x] = colours[index];
        }
      });
      if (tiny) this.spread(pen, picture);
      else pen.putImageData(picture, Math.round(at.left * ratio), Math.round(at.top * ratio));
    }

    spread(pen, picture) {
      const { at } = this, small = new OffscreenCanvas(picture.width, picture.height);
      small.getContext("2d").putImageData(picture, 0, 0);
      pen.drawImage(small, at.left, at.top, picture.width, picture.height);
    }

    drawBorders(pen) {
      const { at } = this;
      pen.strokeStyle = explorer.colour("grid");
      pen.beginPath();
      for (let row = 1; row < at.rows; row += 1) {
        pen.moveTo(at.left, at.top + row * at.unitY);
        pen.lineTo(at.right, at.top + row * at.unitY);
      }
      for (let column = 1; column < at.columns; column += 1) {
        pen.moveTo(at.left + column * at.unitX, at.top);
        pen.lineTo(at.left + column * at.unitX, at.bottom);
      }
      pen.stroke();
    }
  }

  return new Matrix();
};
