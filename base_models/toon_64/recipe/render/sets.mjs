// Renders the six sets: sixteen training pictures and sixteen unseen ones of a character or a style; for a character also sixteen
// strangers, each another character of the same style, against which the measure of likeness is tested.
//
// usage: node sets.mjs FOLDER; writes NAME.PART.rgb (raw 64 x 64 x 3 bytes a picture) and NAME.PART.txt (a caption a line).
// Only micah-b and adventurer-c are of styles that the base model knows. toon-head, dylan, fun-emoji and miniavs stay out of everything
// but these sets: no training of the base model or of its judges may draw them.
import fs from 'node:fs';
import path from 'node:path';

import { Chance } from './chance.mjs';
import { chooseView, draw, rgb } from './drawing.mjs';
import { BACKGROUND, CLOTHES, HAIR, SKIN } from './palette.mjs';
import { STYLES as KNOWN_STYLES } from './styles.mjs';

const PICTURES = 16;

// A stranger of a known style.
const known = (word) => (chance) => {
  const { options, expressions } = KNOWN_STYLES[word].draw(chance);
  return { ...options, ...expressions[chance.key(expressions)](chance) };
};

// A stranger of a style that the base model does not know: these colours are chosen, the parts come from DiceBear's own seed.
const coloured = (colours) => (chance) =>
  Object.fromEntries(Object.entries(colours).map(([option, palette]) => [option, [palette[chance.key(palette)]]]));

// A character: what stays, for each expression what changes, and what a stranger of its style looks like.
const CHARACTERS = {
  'micah-b': {
    collection: 'micah',
    options: {
      hair: ['dannyPhantom'], hairColor: [HAIR.blue], baseColor: [SKIN.brown], shirt: ['collared'], shirtColor: [CLOTHES.orange],
      glassesProbability: 100, glasses: ['round'], glassesColor: ['222222'], earringsProbability: 100, earrings: ['hoop'],
      earringColor: ['f4d150'], facialHairProbability: 0, nose: ['curve'], eyebrows: ['up'], ears: ['attached'], eyes: ['round'],
    },
    expressions: {
      happy: { mouth: ['laughing'] }, sad: { mouth: ['frown'] }, surprised: { mouth: ['surprised'] }, neutral: { mouth: ['smirk'] },
    },
    stranger: known('micah'),
  },
  'adventurer-c': {
    collection: 'adventurer',
    options: {
      hair: ['long16'], hairColor: [HAIR.green], skinColor: [SKIN.light], featuresProbability: 100, features: ['freckles'],
      earringsProbability: 100, earrings: ['variant04'], glassesProbability: 0, eyebrows: ['variant07'],
    },
    expressions: {
      happy: { mouth: ['variant26'], eyes: ['variant26'] }, neutral: { mouth: ['variant02'], eyes: ['variant26'] },
      sad: { mouth: ['variant04'], eyes: ['variant16'] }, surprised: { mouth: ['variant15'], eyes: ['variant03'] },
    },
    stranger: known('adventurer'),
  },
  'toon-a': {
    collection: 'toonHead',
    options: {
      hair: ['bun'], hairColor: [HAIR.purple], skinColor: [SKIN.tan], clothes: ['turtleNeck'], clothesColor: [CLOTHES.yellow],
      beardProbability: 0, rearHairProbability: 0,
    },
    expressions: {
      happy: { mouth: ['laugh'], eyes: ['happy'], eyebrows: ['happy'] }, sad: { mouth: ['sad'], eyes: ['humble'], eyebrows: ['sad'] },
      angry: { mouth: ['angry'], eyes: ['wide'], eyebrows: ['angry'] }, neutral: { mouth: ['smile'], eyes: ['wide'], eyebrows: ['neutral'] },
    },
    stranger: coloured({ hairColor: HAIR, skinColor: SKIN, clothesColor: CLOTHES }),
  },
  'mini-d': {
    collection: 'miniavs',
    options: {
      hair: ['ponyTail'], hairColor: [HAIR.red], skinColor: [SKIN.light], body: ['golf'], bodyColor: [CLOTHES.green], head: ['normal'],
      glassesProbability: 100, mustacheProbability: 0, blushesProbability: 0,
    },
    expressions: {
      happy: { mouth: ['default'], eyes: ['happy'] }, neutral: { mouth: ['missingTooth'], eyes: ['normal'] },
    },
    stranger: coloured({ hairColor: HAIR, skinColor: SKIN, bodyColor: CLOTHES }),
  },
};

function dylan(chance) {
  const names = {
    plain: 'short', wavy: 'long', shortCurls: 'curly', parting: 'short', spiky: 'spiky', roundBob: 'bob', longCurls: 'long',
    buns: 'bun', bangs: 'bangs', fluffy: 'curly', flatTop: 'short', shaggy: 'short',
  };
  const moods = { happy: ['happy', 'superHappy'], angry: ['angry'], neutral: ['neutral'], sad: ['sad'] };
  const [hair, color, skin, mood] = [chance.key(names), chance.key(HAIR), chance.key(SKIN), chance.key(moods)];
  const beard = chance.happens(0.2);
  return {
    options: {
      hair: [hair], hairColor: [HAIR[color]], skinColor: [SKIN[skin]], mood: [chance.of(moods[mood])],
      facialHairProbability: beard ? 100 : 0,
    },
    phrases: [`${names[hair]} ${color} hair`, `${skin} skin`, ...(beard ? ['beard'] : []), mood],
  };
}

function emoji(chance) {
  const mouths = { happy: ['wideSmile', 'smileTeeth', 'smileLol', 'lilSmile'], sad: ['sad'], neutral: ['plain'], surprised: ['shout'] };
  const eyes = { plain: [], cute: [], glasses: ['glasses'], shades: ['sunglasses'], closed: ['sleepy'] };
  const [mood, look] = [chance.key(mouths), chance.key(eyes)];
  return { options: { mouth: [chance.of(mouths[mood])], eyes: [look] }, phrases: [...eyes[look], mood] };
}

// A style: a different character in every picture, all seen straight on.
const STYLES = { 'style-dylan': { collection: 'dylan', draw: dylan }, 'style-emoji': { collection: 'funEmoji', draw: emoji } };

function picture(name, part, chance) {
  const character = CHARACTERS[name];
  if (!character) {
    const style = STYLES[name];
    const view = { background: chance.key(BACKGROUND), size: null, tilt: null, mirrored: false };
    return { collection: style.collection, view, ...style.draw(chance) };
  }
  const { collection, options, expressions, stranger } = character;
  const view = chooseView(chance, true);
  if (part === 'strangers') return { collection, options: stranger(chance), phrases: [], view };
  const expression = chance.key(expressions);
  return { collection, options: { ...options, ...expressions[expression] }, phrases: [expression], view };
}

const folder = process.argv[2];
[...Object.keys(CHARACTERS), ...Object.keys(STYLES)].forEach((name, number) => {
  const drawn = new Set();
  ['train', 'unseen', ...(CHARACTERS[name] ? ['strangers'] : [])].forEach((part, seed) => {
    const [pixels, captions] = [[], []];
    for (let index = 0, attempt = 0; index < PICTURES; ) {
      const seeds = attempt ? [6, number, seed, index, attempt] : [6, number, seed, index];
      const { collection, options, phrases, view } = picture(name, part, new Chance(...seeds));
      const said = [...phrases, `${view.background} background`, view.size, view.tilt, view.mirrored && 'mirrored'].filter(Boolean);
      // A set's character keeps the parts that its options leave open; every other picture chooses its own.
      const same = CHARACTERS[name] && part !== 'strangers';
      const bytes = rgb(draw(collection, options, view, same ? name : `${name}/${part}/${index}`));
      // No picture twice: what is unseen must be, and a dataset refuses repeats.
      if (drawn.has(bytes.toString('base64'))) {
        attempt++;
        continue;
      }
      drawn.add(bytes.toString('base64'));
      pixels.push(bytes);
      captions.push(said.join(', '));
      [index, attempt] = [index + 1, 0];
    }
    fs.writeFileSync(path.join(folder, `${name}.${part}.rgb`), Buffer.concat(pixels));
    fs.writeFileSync(path.join(folder, `${name}.${part}.txt`), captions.join('\n') + '\n');
  });
});
