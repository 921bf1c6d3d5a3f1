// How a character of each pretraining style is drawn: DiceBear options, and the attributes that they show.
//
// A style is { collection, word, turns, draw(chance) }. `word` names it in captions; `turns`: its faces look to one side, so that
// mirroring shows. draw returns { options, attributes, expressions }: everything that stays with the character, and for each
// expression its options. An attribute that is null cannot be seen (hair under a hat), one that is absent the style has not.
import { CLOTHES, HAIR, SKIN } from './palette.mjs';

const numbered = (prefix, first, last) =>
  Array.from({ length: last - first + 1 }, (_, i) => prefix + String(first + i).padStart(2, '0'));
const variants = (...numbers) => numbers.map((n) => 'variant' + String(n).padStart(2, '0'));
const one = (options) => (chance) => Object.fromEntries(Object.entries(options).map(([k, v]) => [k, [chance.of(v)]]));

function adventurer(chance) {
  const [hairColor, skin] = [chance.key(HAIR), chance.key(SKIN)];
  const long = chance.happens(0.55);
  const hair = chance.of(long ? numbered('long', 1, 26) : numbered('short', 1, 19));
  const [glasses, freckles, earrings] = [chance.happens(0.25), chance.happens(0.1), chance.happens(0.1)];
  return {
    options: {
      hair: [hair], hairColor: [HAIR[hairColor]], hairProbability: 100, skinColor: [SKIN[skin]],
      glassesProbability: glasses ? 100 : 0, earringsProbability: earrings ? 100 : 0,
      features: ['freckles'], featuresProbability: freckles ? 100 : 0,
    },
    attributes: {
      hair: long ? 'long' : 'short', hairColor, skin, glasses: glasses ? 'glasses' : 'none',
      extras: [freckles && 'freckles', earrings && 'earrings'].filter(Boolean),
    },
    expressions: {
      happy: one({ mouth: variants(1, 5, 23, 25, 26, 27, 28), eyes: variants(1, 2, 3, 19, 23, 24, 25, 26) }),
      sad: one({ mouth: variants(3, 4, 14, 19), eyes: variants(15, 16) }),
      surprised: one({ mouth: variants(15), eyes: variants(3, 8) }),
      neutral: one({ mouth: variants(2, 9, 10), eyes: variants(1, 2, 3, 24, 25, 26) }),
    },
  };
}

function bigSmile(chance) {
  const names = {
    shortHair: 'short', mohawk: 'mohawk', wavyBob: 'bob', bowlCutHair: 'bowl cut', curlyBob: 'curly', straightHair: 'long',
    braids: 'braids', shavedHead: 'shaved', bunHair: 'bun', froBun: 'bun', bangs: 'bangs', halfShavedHead: 'shaved',
    curlyShortHair: 'curly',
  };
  const worn = {
    catEars: { hat: 'cat ears' }, sailormoonCrown: { hat: 'crown' }, glasses: { glasses: 'glasses' },
    sunglasses: { glasses: 'sunglasses' }, mustache: { beard: 'mustache' },
  };
  const [hair, hairColor, skin] = [chance.key(names), chance.key(HAIR), chance.key(SKIN)];
  const accessory = chance.happens(0.4) ? chance.key(worn) : null;
  const shown = accessory ? worn[accessory] : {};
  const faces = {
    happy: one({ mouth: ['openedSmile', 'gapSmile', 'teethSmile'], eyes: ['cheery', 'normal', 'starstruck'] }),
    sad: one({ mouth: ['openSad'], eyes: ['sad'] }),
    angry: one({ mouth: ['unimpressed'], eyes: ['angry'] }),
    sleepy: one({ mouth: ['awkwardSmile', 'unimpressed'], eyes: ['sleepy'] }),
    winking: one({ mouth: ['teethSmile', 'awkwardSmile'], eyes: ['winking'] }),
  };
  return {
    options: {
      hair: [hair], hairColor: [HAIR[hairColor]], skinColor: [SKIN[skin]],
      accessories: [accessory ?? 'glasses'], accessoriesProbability: accessory ? 100 : 0,
    },
    attributes: {
      hair: names[hair], hairColor, skin, hat: shown.hat ?? 'none', glasses: shown.glasses ?? 'none',
      beard: shown.beard ?? 'none', extras: [],
    },
    // Dark glasses hide the eyes that tell the other expressions apart.
    expressions: accessory === 'sunglasses' ? { happy: faces.happy, sad: faces.sad } : faces,
  };
}

function micah(chance) {
  const names = {
    fonze: 'short', mrT: 'mohawk', dougFunny: 'short', mrClean: 'bald', dannyPhantom: 'spiky', full: 'long', turban: 'turban',
    pixie: 'bob',
  };
  const [hair, color, skin, clothes] = [chance.key(names), chance.key(HAIR), chance.key(SKIN), chance.key(CLOTHES)];
  const [glasses, beard, earrings] = [chance.happens(0.3), chance.happens(0.2), chance.happens(0.15)];
  const turban = hair === 'turban';
  return {
    options: {
      hair: [hair], hairColor: [HAIR[color]], baseColor: [SKIN[skin]], shirtColor: [CLOTHES[clothes]],
      glassesProbability: glasses ? 100 : 0, glassesColor: ['222222'],
      facialHair: ['beard'], facialHairProbability: beard ? 100 : 0, facialHairColor: [HAIR[color]],
      earringsProbability: earrings ? 100 : 0, earringColor: ['f4d150'],
    },
    attributes: {
      hair: turban ? null : names[hair], hairColor: turban || hair === 'mrClean' ? null : color,
      hat: turban ? 'turban' : 'none', hatColor: turban ? color : null, skin, clothes,
      glasses: glasses ? 'glasses' : 'none', beard: beard ? 'beard' : 'none', extras: earrings ? ['earrings'] : [],
    },
    expressions: {
      happy: one({ mouth: ['smile', 'laughing'] }), sad: one({ mouth: ['sad', 'frown'] }),
      surprised: one({ mouth: ['surprised'] }), neutral: one({ mouth: ['nervous', 'pucker', 'smirk'] }),
    },
  };
}

// Open Peeps' hair is drawn in black ink; only these heads take the contrast colour.
const PEEPS_COLOURED = { bangs: 'bangs', grayBun: 'bun', grayMedium: 'bob', grayShort: 'short', mediumBangs: 'bangs', mohawk: 'mohawk', mohawk2: 'mohawk', short4: 'short' };
const PEEPS_BLACK = {
  afro: 'afro', longAfro: 'afro', bangs2: 'bangs', bun: 'bun', bun2: 'bun', bantuKnots: 'bun', dreads1: 'curly', dreads2: 'curly',
  flatTop: 'short', flatTopLong: 'short', long: 'long', longBangs: 'long', longCurly: 'curly', medium1: 'bob', medium2: 'bob',
  medium3: 'bob', mediumBangs2: 'bangs', mediumStraight: 'bob', pomp: 'short', shaved2: 'shaved', short1: 'short', short2: 'short',
  short3: 'short', short5: 'short', twists2: 'short',
};
const PEEPS_BARE = { noHair1: 'bald', noHair2: 'bald' };
const PEEPS_HATS = { hatBeanie: 'hat', hatHip: 'hat', hijab: 'hijab', turban: 'turban' };

function openPeeps(chance) {
  const [color, skin, clothes] = [chance.key(HAIR), chance.key(SKIN), chance.key(CLOTHES)];
  const kind = chance.of([PEEPS_COLOURED, PEEPS_COLOURED, PEEPS_BLACK, PEEPS_BLACK, PEEPS_BARE, PEEPS_HATS]);
  const head = chance.key(kind);
  const hat = PEEPS_HATS[head] ?? 'none';
  const glasses = chance.happens(0.3) ? chance.of(['glasses', 'glasses2', 'glasses3', 'sunglasses', 'sunglasses2']) : null;
  const beard = chance.happens(0.15);
  const happy = ['smileBig', 'smileLOL', 'smileTeethGap'];
  const faces = {
    happy: one({ face: [...happy, 'smile'] }), angry: one({ face: ['rage', 'veryAngry', 'angryWithFang'] }),
    surprised: one({ face: ['awe', 'fear'] }), neutral: one({ face: ['serious', 'blank'] }), sleepy: one({ face: ['calm', 'eyesClosed'] }),
  };
  return {
    options: {
      head: [head], headContrastColor: [HAIR[color]], skinColor: [SKIN[skin]], clothingColor: [CLOTHES[clothes]],
      accessories: [glasses ?? 'glasses'], accessoriesProbability: glasses ? 100 : 0,
      facialHair: ['full', 'full2', 'full3', 'full4'], facialHairProbability: beard ? 100 : 0, maskProbability: 0,
    },
    attributes: {
      hair: kind[head] === hat ? null : kind[head],
      hairColor: kind === PEEPS_COLOURED ? color : kind === PEEPS_BLACK ? 'black' : null,
      hat, hatColor: ['hatBeanie', 'turban'].includes(head) ? clothes : hat === 'none' ? null : 'black',
      skin, clothes, glasses: glasses?.replace(/\d/, '') ?? 'none', beard: beard ? 'beard' : 'none', extras: [],
    },
    // Dark glasses hide the eyes that tell the other expressions apart.
    expressions: glasses?.startsWith('sun') ? { happy: one({ face: happy }), neutral: one({ face: ['serious'] }) } : faces,
  };
}

function personas(chance) {
  const names = {
    long: 'long', sideShave: 'shaved', shortCombover: 'short', curlyHighTop: 'curly', bobCut: 'bob', curly: 'curly',
    pigtails: 'pigtails', curlyBun: 'bun', buzzcut: 'shaved', bobBangs: 'bangs', bald: 'bald', cap: 'cap', fade: 'short',
    beanie: 'hat', straightBun: 'bun', extraLong: 'long', mohawk: 'mohawk',
  };
  const [hair, color, skin, clothes] = [chance.key(names), chance.key(HAIR), chance.key(SKIN), chance.key(CLOTHES)];
  const covered = hair === 'cap' || hair === 'beanie';
  const glasses = chance.happens(0.25) ? 'glasses' : chance.happens(0.12) ? 'sunglasses' : 'none';
  const beard = chance.happens(0.2) ? chance.of(['beardMustache', 'walrus', 'goatee']) : null;
  const eyes = (open) => (glasses === 'none' ? open : [glasses]);
  return {
    options: {
      hair: [hair], hairColor: [HAIR[color]], skinColor: [SKIN[skin]], clothingColor: [CLOTHES[clothes]],
      facialHair: [beard ?? 'goatee'], facialHairProbability: beard ? 100 : 0,
    },
    attributes: {
      hair: covered ? null : names[hair], hairColor: covered || hair === 'bald' ? null : color,
      hat: covered ? names[hair] : 'none', hatColor: covered ? color : null, skin, clothes, glasses,
      beard: beard === null ? 'none' : beard === 'walrus' ? 'mustache' : 'beard', extras: [],
    },
    expressions: {
      happy: one({ mouth: ['smile', 'bigSmile'], eyes: eyes(['open', 'happy']) }), sad: one({ mouth: ['frown'], eyes: eyes(['open']) }),
      surprised: one({ mouth: ['surprise'], eyes: eyes(['open']) }), neutral: one({ mouth: ['smirk', 'lips'], eyes: eyes(['open']) }),
    },
  };
}

function pixelArt(chance) {
  const [hairColor, skin, clothes, hatColor] = [chance.key(HAIR), chance.key(SKIN), chance.key(CLOTHES), chance.key(CLOTHES)];
  const long = chance.happens(0.5);
  const [beard, hat] = [chance.happens(0.15), chance.happens(0.15)];
  const glasses = chance.happens(0.25) ? (chance.happens(0.5) ? 'sunglasses' : 'glasses') : 'none';
  return {
    options: {
      hair: [chance.of(long ? numbered('long', 1, 21) : numbered('short', 1, 24))], hairColor: [HAIR[hairColor]],
      skinColor: [SKIN[skin]], clothingColor: [CLOTHES[clothes]],
      glasses: numbered(glasses === 'sunglasses' ? 'dark' : 'light', 1, 7), glassesProbability: glasses === 'none' ? 0 : 100,
      beardProbability: beard ? 100 : 0, hatProbability: hat ? 100 : 0, hatColor: [CLOTHES[hatColor]], accessoriesProbability: 0,
    },
    attributes: {
      hair: hat ? null : long ? 'long' : 'short', hairColor: hat ? null : hairColor, hat: hat ? 'hat' : 'none',
      hatColor: hat ? hatColor : null, skin, clothes, glasses, beard: beard ? 'beard' : 'none', extras: [],
    },
    expressions: { happy: one({ mouth: ['happy08', 'happy09', 'happy11', 'happy12', 'happy13'] }), sad: one({ mouth: ['sad02', 'sad05', 'sad07', 'sad08', 'sad10'] }) },
  };
}

function lorelei(chance) {
  const hairColor = chance.key(HAIR);
  const skin = chance.happens(0.4) ? 'white' : chance.key(SKIN);
  const [glasses, beard, earrings] = [chance.happens(0.3), chance.happens(0.12), chance.happens(0.12)];
  return {
    options: {
      hairColor: [HAIR[hairColor]], skinColor: [skin === 'white' ? 'ffffff' : SKIN[skin]],
      glassesProbability: glasses ? 100 : 0, beardProbability: beard ? 100 : 0, earringsProbability: earrings ? 100 : 0,
      frecklesProbability: 0, hairAccessoriesProbability: 0,
    },
    attributes: {
      hairColor, skin, glasses: glasses ? 'glasses' : 'none', beard: beard ? 'beard' : 'none',
      extras: earrings ? ['earrings'] : [],
    },
    expressions: { happy: one({ mouth: ['happy05', 'happy06', 'happy07', 'happy16'] }), sad: one({ mouth: ['sad01', 'sad05', 'sad06', 'sad09'] }) },
  };
}

function thumbs(chance) {
  const body = chance.key(CLOTHES);
  const ink = body === 'white' || body === 'yellow' ? '000000' : chance.of(['000000', 'ffffff']);
  return {
    options: { shapeColor: [CLOTHES[body]], eyesColor: [ink], mouthColor: [ink] },
    attributes: { body, extras: [] },
    expressions: { happy: one({ mouth: ['variant1', 'variant2'] }), neutral: one({ mouth: ['variant3', 'variant4'] }) },
  };
}

export const STYLES = {
  adventurer: { collection: 'adventurer', turns: true, draw: adventurer },
  bigsmile: { collection: 'bigSmile', turns: true, draw: bigSmile },
  micah: { collection: 'micah', turns: true, draw: micah },
  peeps: { collection: 'openPeeps', turns: true, draw: openPeeps },
  personas: { collection: 'personas', turns: false, draw: personas },
  pixel: { collection: 'pixelArt', turns: false, draw: pixelArt },
  lorelei: { collection: 'lorelei', turns: true, draw: lorelei },
  thumbs: { collection: 'thumbs', turns: false, draw: thumbs },
};
