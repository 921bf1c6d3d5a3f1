// The named colours (hex). A caption says the name, a picture shows the colour.

export const HAIR = {
  black: '1b1b1b', brown: '6b3e1f', blonde: 'ecc65e', red: 'b3261e', orange: 'ec7a1c', gray: '9a9a9a',
  white: 'f4f4f4', blue: '2f6fd0', green: '3aa655', pink: 'f48fb1', purple: '7e3fa8',
};
export const SKIN = { light: 'ffdbb4', tan: 'dfa574', brown: 'a8683c', dark: '6b4226' };
export const CLOTHES = {
  red: 'd8322f', orange: 'ef8a1e', yellow: 'f2c91e', green: '3b9c4b', teal: '1fa39a', blue: '2d62c8',
  purple: '7a3fb5', pink: 'ee6fa8', black: '2b2b2b', white: 'fafafa', gray: '8c8c8c',
};
export const BACKGROUND = {
  white: 'ffffff', gray: 'c4c4c4', black: '2a2a2a', red: 'e5584d', orange: 'f7a654', yellow: 'f8e27c',
  green: '8fd694', teal: '55c7bf', blue: '7fb8f0', purple: 'b79be8', pink: 'f9b8d4',
};
