/** @type {import('tailwindcss').Config} */
export default {
  theme: {
    extend: {
      colors: {
        // The four warning levels, for meters, charts and words: `text-level-warning`, `fill-level-safe`.
        // daisyUI has three such colours, made to lie behind text: its yellow on white is too pale to be read.
        // Each of these is at least 4.5 : 1 against the page (WCAG AA) in both themes, and light-dark() follows
        // the theme by its color-scheme. No level is told by colour alone: a word and an icon stand beside it.
        level: {
          safe: 'light-dark(oklch(48% 0.12 155), oklch(78% 0.16 155))',
          warning: 'light-dark(oklch(49% 0.1 75), oklch(85% 0.15 85))',
          critical: 'light-dark(oklch(50% 0.14 42), oklch(77% 0.15 55))',
          exceeded: 'light-dark(oklch(49% 0.2 25), oklch(74% 0.15 20))',
        },
      },
    },
  },
}
