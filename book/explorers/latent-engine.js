/**
 * The whole generator in JavaScript, in a worker where the browser allows one.
 *
 * Batch norm is folded into the weights, so there is nothing but transposed convolutions: every pixel of a map stamps
 * its kernels, one for each output channel, onto the larger map, `stride` pixels from where its neighbour does. After
 * ReLU most numbers are zero, and zeros stamp nothing: they are left out, which saves more than half of the work.
 */
"use strict";

Object.assign(explorers.latent ??= {}, (() => {
  /** Makes a function from z to an image. All it needs is in here, because a worker is made of its text. */
  function makeNetwork(layers) {
    const BLOCK = 8; // output channels at once, as many as processors have registers for

    /** Weights in the order in which they are met: place in the kernel, block of output channels, input channel. */
    const arranged = layers.map((layer) => {
      const { in: inputs, out: outputs, kernel, weight, bias } = layer;
      const blocks = Math.ceil(outputs / BLOCK), area = kernel * kernel, width = blocks * BLOCK;
      const weights = new Float32Array(area * inputs * width), biases = new Float32Array(width);
      biases.set(bias);
      let from = 0;
      for (let i = 0; i < inputs; i += 1) {
        for (let o = 0; o < outputs; o += 1) {
          const to = (Math.floor(o / BLOCK) * inputs + i) * BLOCK + o % BLOCK;
          for (let place = 0; place < area; place += 1) weights[place * inputs * width + to] = weight[from++];
        }
      }
      return { ...layer, blocks, width, weights, biases, map: new Float32Array(layer.size ** 2 * width) };
    });

    /** Of each pixel of a map, the channels that are not zero: `ends` says where a pixel's own stop. */
    const most = Math.max(...arranged.map(({ size, width }, i) => (i < layers.length - 1 ? size ** 2 * width : 0)), layers[0].in);
    const channels = new Int32Array(most), values = new Float32Array(most), ends = new Int32Array(most + 1);
    function compress(map, pixels, count, width, rectify) {
      let n = 0;
      for (let pixel = 0; pixel < pixels; pixel += 1) {
        for (let c = 0, at = pixel * width; c < count; c += 1, at += 1) {
          const value = map[at];
          if (rectify ? value > 0 : value !== 0) {
            channels[n] = c * BLOCK;
            values[n] = value;
            n += 1;
          }
        }
        ends[pixel + 1] = n;
      }
    }

    /** Add to eight output channels at `to` what the input channels `start` to `end` have for them. */
    function stamp(weights, base, start, end, map, to) {
      let a = map[to], b = map[to + 1], c = map[to + 2], d = map[to + 3];
      let e = map[to + 4], f = map[to + 5], g = map[to + 6], h = map[to + 7];
      for (let n = start; n < end; n += 1) {
        const x = values[n], w = base + channels[n];
        a += x * weights[w];
        b += x * weights[w + 1];
        c += x * weights[w + 2];
        d += x * weights[w + 3];
        e += x * weights[w + 4];
        f += x * weights[w + 5];
        g += x * weights[w + 6];
        h += x * weights[w + 7];
      }
      map[to] = a;
      map[to + 1] = b;
      map[to + 2] = c;
      map[to + 3] = d;
      map[to + 4] = e;
      map[to + 5] = f;
      map[to + 6] = g;
      map[to + 7] = h;
    }

    /** The same for three or fewer, of an image. */
    function stampImage(weights, base, start, end, map, to) {
      let a = map[to], b = map[to + 1], c = map[to + 2];
      for (let n = start; n < end; n += 1) {
        const x = values[n], w = base + channels[n];
        a += x * weights[w];
        b += x * weights[w + 1];
        c += x * weights[w + 2];
      }
      map[to] = a;
      map[to + 1] = b;
      map[to + 2] = c;
    }

    /** One transposed convolution of what `compress` has left. */
    function transposed(layer, before) {
      const { kernel, stride, padding, size, blocks, width, weights, biases, map } = layer;
      const add = layer.out <= 3 ? stampImage : stamp;
      for (let pixel = 0; pixel < map.length; pixel += width) map.set(biases, pixel);
      // One place of the kernel after the other, so that its weights stay in the processor's cache.
      for (let place = 0, base = 0; place < kernel * kernel; place += 1) {
        const down = Math.floor(place / kernel) - padding, across = place % kernel - padding;
        for (let block = 0; block < blocks; block += 1, base += layer.in * BLOCK) {
          for (let row = 0; row < before; row += 1) {
            const y = row * stride + down;
            if (y < 0 || y >= size) continue;
            for (let column = 0; column < before; column += 1) {
              const x = column * stride + across, pixel = row * before + column;
              if (x < 0 || x >= size) continue;
              add(weights, base, ends[pixel], ends[pixel + 1], map, (y * size + x) * width + block * BLOCK);
            }
          }
        }
      }
    }

    /** z (D,) to an image (C, S, S) in [-1, 1]. */
    return (z) => {
      compress(z, 1, z.length, z.length, false);
      arranged.forEach((layer, i) => {
        transposed(layer, i ? arranged[i - 1].size : 1);
        if (i < arranged.length - 1) compress(layer.map, layer.size ** 2, layer.out, layer.width, true);
      });
      const { out, size, width, map } = arranged.at(-1), image = new Float32Array(out * size * size);
      for (let c = 0, to = 0; c < out; c += 1) {
        for (let from = c; from < map.length; from += width) image[to++] = Math.tanh(map[from]);
      }
      return image;
    };
  }

  /** What the worker does: it is told the layers once, then answers each z with its image. */
  function serve(make) {
    let network = null;
    self.onmessage = ({ data }) => {
      if (data.layers) {
        network = make(data.layers);
        self.postMessage("ready");
      } else {
        const image = network(data);
        self.postMessage(image, [image.buffer]);
      }
    };
  }

  /** From the text of the functions, since a page opened from the disk may start no worker from a file. */
  function startWorker() {
    const text = `"use strict";(${serve})(${makeNetwork});`;
    const address = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
    const worker = new Worker(address);
    URL.revokeObjectURL(address);
    return worker;
  }

  /**
   * Makes images one at a time. A request goes by a name; a later one with that name takes its place as long as it waits,
   * so that a dragged slider never leaves a queue behind. Urgent ones come first.
   */
  class Maker {
    constructor(generator) {
      this.generator = generator;
      /** @type {Map<any, {z: Float32Array, deliver: (image: Float32Array) => void, urgent: boolean}>} */
      this.waiting = new Map();
      this.current = null;
      this.ready = false;
      try {
        this.worker = startWorker();
        this.worker.onmessage = ({ data }) => (data === "ready" ? this.begin() : this.done(data));
        this.worker.onerror = () => this.withoutWorker();
        this.worker.postMessage({ layers: generator.layers });
      } catch {
        this.withoutWorker();
      }
    }

    begin() {
      this.ready = true;
      this.next();
    }

    /** Where there is no worker, here; between two images the page may draw and answer. */
    withoutWorker() {
      this.worker = null;
      this.network = makeNetwork(this.generator.layers);
      if (this.current) this.makeHere();
      this.begin();
    }

    makeHere() {
      setTimeout(() => this.done(this.network(this.current.z)));
    }

    request(name, z, deliver, urgent = false) {
      this.waiting.set(name, { z, deliver, urgent });
      this.next();
    }

    /** One image, as a promise. */
    make(z) {
      return new Promise((resolve) => { this.request(Symbol("one"), z, resolve, true); });
    }

    next() {
      if (this.current || !this.ready || !this.waiting.size) return;
      const entries = [...this.waiting];
      const [name, job] = entries.find(([, waiting]) => waiting.urgent) ?? entries[0];
      this.waiting.delete(name);
      this.current = job;
      if (this.worker) this.worker.postMessage(job.z);
      else this.makeHere();
    }

    done(image) {
      const { deliver } = this.current;
      this.current = null;
      this.next(); // the worker goes on while this picture is drawn
      deliver(image);
    }
  }

  /** @type {Map<any, Promise<Maker>>} One for each generator, however many explorers of a page show it. */
  const makers = new Map();

  function makerOf(document) {
    if (!makers.has(document)) makers.set(document, explorers.latent.readGenerator(document).then((read) => new Maker(read)));
    return makers.get(document);
  }

  return { makeNetwork, makerOf };
})());
