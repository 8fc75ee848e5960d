/**
 * The latent vectors of `dcgan_lib.latent.sample_latent`, number for number: row i of a seed is the same z here and there.
 *
 * NumPy's generator Philox4x64-10 (Salmon et al. 2011) with the key (seed, row), and NumPy's ziggurat for normal float32
 * numbers (Marsaglia and Tsang 2000), whose tables follow from two numbers.
 */
"use strict";

Object.assign(explorers.latent ??= {}, (() => {
  const WORD = (1n << 64n) - 1n;
  const [M0, M1] = [0xD2E7470EE14C6C93n, 0xCA5A826395121157n];
  const [W0, W1] = [0x9E3779B97F4A7C15n, 0xBB67AE8584CAA73Bn];

  /** Random bits from the stream (seed, row): `next64()` and, two to a word and the lower half first, `next32()`. */
  function philox(seed, row) {
    let counter = 0n, words = [], upper = null;
    const block = () => {
      counter += 1n;
      let [a, b, c, d] = [counter & WORD, counter >> 64n, 0n, 0n];
      let [k, l] = [BigInt(seed), BigInt(row)];
      for (let round = 0; round < 10; round += 1) {
        const [p, q] = [M0 * a, M1 * c];
        [a, b, c, d] = [(q >> 64n) ^ b ^ k, q & WORD, (p >> 64n) ^ d ^ l, p & WORD];
        [k, l] = [(k + W0) & WORD, (l + W1) & WORD];
      }
      return [a, b, c, d];
    };
    const next64 = () => {
      if (!words.length) words = block();
      return words.shift();
    };
    const next32 = () => {
      if (upper !== null) {
        const kept = upper;
        upper = null;
        return kept;
      }
      const word = next64();
      upper = Number(word >> 32n);
      return Number(word & 0xFFFFFFFFn);
    };
    return { next64, next32 };
  }

  // The ziggurat: 256 layers of equal area under the bell curve, the lowest from EDGE outwards.
  const EDGE = 3.6541528853610088, AREA = 0.00492867323399, SCALE = 2 ** 23;
  const bell = (x) => Math.exp(-0.5 * x * x);
  const within = new Uint32Array(256), widths = new Float32Array(256), heights = new Float32Array(256);
  (() => {
    const lowest = AREA / bell(EDGE);
    let x = EDGE, before = EDGE;
    [within[0], widths[0], heights[0]] = [EDGE / lowest * SCALE, lowest / SCALE, 1];
    [widths[255], heights[255]] = [EDGE / SCALE, bell(EDGE)];
    for (let i = 254; i > 0; i -= 1) {
      x = Math.sqrt(-2 * Math.log(AREA / x + bell(x)));
      [within[i + 1], heights[i], widths[i]] = [x / before * SCALE, bell(x), x / SCALE];
      before = x;
    }
  })();

  /** One standard normal number. */
  function normal(next32) {
    const uniform = () => (next32() >>> 8) / 2 ** 24;
    for (;;) {
      const bits = next32(), layer = bits & 255, distance = (bits >>> 9) & 0x7FFFFF;
      const x = Math.fround(distance * widths[layer]) * ((bits >>> 8) & 1 ? -1 : 1);
      if (distance < within[layer]) return x;
      if (layer > 0) {
        if ((heights[layer - 1] - heights[layer]) * uniform() + heights[layer] < bell(x)) return x;
        continue;
      }
      for (;;) { // beyond the edge
        const over = -Math.log1p(-uniform()) / EDGE, chance = -Math.log1p(-uniform());
        if (2 * chance > over * over) return (distance >>> 8) & 1 ? -(EDGE + over) : EDGE + over;
      }
    }
  }

  /** Row `row` of `sample_latent(n, dimension, seed)`. @returns {Float32Array} */
  function sampleLatent(seed, row, dimension) {
    const { next32 } = philox(seed, row);
    return Float32Array.from({ length: dimension }, () => normal(next32));
  }

  /** The vectors of `dcgan_lib.latent.neighbours(z, count, scale, seed=0)`; the middle one is z itself. */
  function neighbours(z, count, scale) {
    const { next64 } = philox(0n, WORD);
    return Array.from({ length: count }, (_, i) => z.map((value) => {
      const noise = -scale + 2 * scale * (Number(next64() >> 11n) / 2 ** 53);
      return i === Math.floor(count / 2) ? value : value + noise;
    }));
  }

  return { sampleLatent, neighbours };
})());
