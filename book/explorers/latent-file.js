/**
 * Reads a generator as `dcgan_lib.page_generator.pack` has written it, and believes nothing before its checksum.
 */
"use strict";

Object.assign(explorers.latent ??= {}, (() => {
  const FORMAT = "dcgan_lib generator", VERSION = 1, UNIT = 32767;
  const table = Uint32Array.from({ length: 256 }, (_, n) => {
    let c = n;
    for (let i = 0; i < 8; i += 1) c = c & 1 ? (c >>> 1) ^ 0xEDB88320 : c >>> 1;
    return c;
  });

  /** CRC-32 of some bytes after others. */
  function crc32(...parts) {
    let c = 0xFFFFFFFF;
    for (const part of parts) for (let i = 0; i < part.length; i += 1) c = table[(c ^ part[i]) & 255] ^ (c >>> 8);
    return (c ^ 0xFFFFFFFF) >>> 0;
  }

  const refuse = (why) => { throw new explorers.Unable(why); };
  const DAMAGED = "The generator of this figure is damaged or incomplete, so only the still picture can be shown.";

  /**
   * @typedef {{in: number, out: number, kernel: number, stride: number, padding: number, size: number,
   *   weight: Float32Array, bias: Float32Array}} Layer `weight` is (in, out, kernel, kernel), as in PyTorch.
   * @typedef {{vector: Float32Array, factor: string, value: string, before: number, after: number}} Direction
   */

  /**
   * @returns {Promise<{name: string, layers: Layer[], directions: Direction[], dimension: number, size: number,
   *   channels: number, factors: [string, string[]][], labels: Uint8Array}>}
   */
  async function readGenerator(document) {
    if (document?.format !== FORMAT) refuse("What this figure loads is not a generator.");
    if (document.version !== VERSION) refuse("The generator of this figure belongs to another version of this page.");
    const { crc32: expected, numbers, ...header } = document;
    let payload;
    try {
      payload = await explorers.inflate(numbers);
    } catch (error) {
      throw error instanceof explorers.Unable ? error : new explorers.Unable(DAMAGED);
    }
    if (crc32(new TextEncoder().encode(JSON.stringify(header)), payload) !== expected) refuse(DAMAGED);

    let at = 0;
    const take = (Type, count) => { // a copy, since numbers of four bytes may not start just anywhere
      const part = payload.slice(at, at += count * Type.BYTES_PER_ELEMENT);
      if (part.length !== count * Type.BYTES_PER_ELEMENT) refuse(DAMAGED);
      return new Type(part.buffer);
    };
    const layers = header.layers.map((about, i) => {
      const count = about.in * about.out * about.kernel ** 2, low = about.bits - 8;
      if (i && about.in !== header.layers[i - 1].out) refuse(DAMAGED);
      const steps = take(Float32Array, about.out), bias = take(Float32Array, about.out);
      const high = take(Int8Array, count), rest = take(Uint8Array, Math.ceil(count * low / 8));
      const weight = new Float32Array(count), area = about.kernel ** 2;
      for (let j = 0; j < count; j += 1) {
        let below = 0;
        for (let bit = 0, from = j * low; bit < low; bit += 1, from += 1) below |= ((rest[from >> 3] >> (from & 7)) & 1) << bit;
        weight[j] = ((high[j] << low) + below) * steps[Math.floor(j / area) % about.out];
      }
      return { ...about, weight, bias };
    });
    const [first, last] = [layers[0], layers.at(-1)];
    const directions = header.directions.map(([factor, value, before, after]) => (
      { vector: Float32Array.from(take(Int16Array, first.in), (part) => part / UNIT), factor, value, before, after }));
    const labels = take(Uint8Array, header.samples * header.factors.length);
    if (at !== payload.length) refuse(DAMAGED);
    return {
      name: header.name, layers, directions, labels, factors: header.factors,
      dimension: first.in, size: last.size, channels: last.out,
    };
  }

  return { readGenerator };
})());
