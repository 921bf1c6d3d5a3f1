// Renders one shard of pictures: SHARD.rgb (raw 64 x 64 x 3 bytes a picture) and SHARD.jsonl (what each picture shows).
//
// usage: node pictures.mjs SHARD DATASET FIRST_CHARACTER CHARACTERS VIEWS STYLE,STYLE,...
// DATASET is a seed: another one gives other characters. Files appear whole or not at all; the same call makes the same bytes.
import fs from 'node:fs';

import { Chance } from './chance.mjs';
import { chooseView, draw, rgb } from './drawing.mjs';
import { EXTRA_STYLES } from './extra_styles.mjs';
import { STYLES } from './styles.mjs';

const [, , shard, dataset, first, count, views, words] = process.argv;
const known = { ...STYLES, ...EXTRA_STYLES };
const styles = words.split(',');

const pixels = fs.openSync(`${shard}.rgb.part`, 'w');
const records = fs.openSync(`${shard}.jsonl.part`, 'w');
for (let character = +first; character < +first + +count; character++) {
  const word = styles[character % styles.length];
  const style = known[word];
  const drawn = style.draw(new Chance(+dataset, character));
  for (let index = 0; index < +views; index++) {
    const chance = new Chance(+dataset, character, index);
    const expression = chance.key(drawn.expressions);
    const view = chooseView(chance, style.turns);
    const options = { ...drawn.options, ...drawn.expressions[expression](chance) };
    fs.writeSync(pixels, rgb(draw(style.collection, options, view, `${dataset}/${character}`)));
    const shown = Object.keys(drawn.expressions).length > 1 ? { expression } : {};
    fs.writeSync(records, JSON.stringify({ style: word, character, ...drawn.attributes, ...shown, ...view }) + '\n');
  }
}
for (const [file, path] of [[pixels, `${shard}.rgb`], [records, `${shard}.jsonl`]]) {
  fs.closeSync(file);
  fs.renameSync(`${path}.part`, path);
}
