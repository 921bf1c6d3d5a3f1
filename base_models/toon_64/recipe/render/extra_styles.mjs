// Styles that only the identity encoder learns from: it must tell apart styles that the base model never drew.
import { CLOTHES, HAIR, SKIN } from './palette.mjs';

const still = { any: () => ({}) };

const bigEars = (chance) => ({
  options: { hairColor: [HAIR[chance.key(HAIR)]], skinColor: [SKIN[chance.key(SKIN)]] }, attributes: {}, expressions: still,
});
const croodles = (chance) => ({
  options: { topColor: [CLOTHES[chance.key(CLOTHES)]], baseColor: [chance.of(['ffffff', SKIN[chance.key(SKIN)]])] },
  attributes: {}, expressions: still,
});
const notionists = () => ({ options: { bodyIconProbability: 0 }, attributes: {}, expressions: still });

export const EXTRA_STYLES = {
  bigears: { collection: 'bigEars', turns: true, draw: bigEars },
  croodles: { collection: 'croodles', turns: true, draw: croodles },
  notion: { collection: 'notionists', turns: true, draw: notionists },
};
