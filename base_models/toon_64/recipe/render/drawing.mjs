// From a character to pixels: a character is drawn once, then shown with any expression, background, framing, tilt and side.
import * as collections from '@dicebear/collection';
import { createAvatar } from '@dicebear/core';
import { Resvg } from '@resvg/resvg-js';

import { BACKGROUND } from './palette.mjs';

export const SIZE = 64;

// A way to show a character: { background, size, tilt, mirrored }, in the words of a caption; null where there is nothing to say.
export function chooseView(chance, turns) {
  const [framing, lean] = [chance.number(), chance.number()];
  return {
    background: chance.key(BACKGROUND),
    size: framing < 0.15 ? 'close-up' : framing < 0.3 ? 'small' : null,
    tilt: lean < 0.08 ? 'tilted right' : lean < 0.16 ? 'tilted left' : null,
    mirrored: turns && chance.happens(0.25),
  };
}

// Pixels, SIZE x SIZE. seed: what DiceBear chooses the parts from that the options leave open.
export function draw(collection, options, view, seed) {
  const avatar = createAvatar(collections[collection], {
    ...options,
    seed,
    size: SIZE,
    backgroundColor: [BACKGROUND[view.background]],
    backgroundType: ['solid'],
    scale: { 'close-up': 135, small: 72 }[view.size] ?? 100,
    rotate: { 'tilted right': 15, 'tilted left': 345 }[view.tilt] ?? 0,
    flip: view.mirrored,
  });
  return new Resvg(avatar.toString(), { fitTo: { mode: 'width', value: SIZE }, background: '#ffffff', shapeRendering: 2 }).render();
}

// Red, green, blue bytes of a drawing, row by row.
export function rgb(drawing) {
  const { pixels } = drawing;
  const bytes = Buffer.alloc((pixels.length / 4) * 3);
  for (let i = 0; i < pixels.length / 4; i++) pixels.copy(bytes, i * 3, i * 4, i * 4 + 3);
  return bytes;
}
