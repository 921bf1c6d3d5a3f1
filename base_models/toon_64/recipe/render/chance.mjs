// Repeatable chance: a generator is a function of its seeds alone, so any picture can be drawn again without the ones before it.

// The 32-bit finaliser of MurmurHash3 (Austin Appleby, public domain).
const mix = (h) => {
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
};

export class Chance {
  #state;

  // seeds: whole numbers, most general first, for example (dataset, character, picture).
  constructor(...seeds) {
    this.#state = seeds.reduce((state, seed) => mix(state ^ mix(seed + 0x9e3779b9)), 0x2545f491);
  }

  // A number in [0, 1).
  number() {
    this.#state = (this.#state + 0x9e3779b9) >>> 0;
    return mix(this.#state) / 2 ** 32;
  }

  // True with this probability.
  happens(probability) {
    return this.number() < probability;
  }

  // One of the items.
  of(items) {
    return items[Math.floor(this.number() * items.length)];
  }

  // One of the keys.
  key(object) {
    return this.of(Object.keys(object));
  }
}
