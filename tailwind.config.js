/** @type {import('tailwindcss').Config} */
export default {
  theme: {
    // The only type scale. Each size has its line height.
    fontSize: {
      xs: ['0.75rem', '1.125rem'],
      sm: ['0.875rem', '1.375rem'],
      base: ['1rem', '1.5rem'],
      lg: ['1.125rem', '1.625rem'],
      xl: ['1.375rem', '1.75rem'],
      '2xl': ['1.75rem', '2.125rem'],
      '4xl': ['2.5rem', '2.75rem'],
    },
    extend: {
      fontFamily: {
        // System fonts; the page loads none.
        sans: ['-apple-system', 'BlinkMacSystemFont', '"Segoe UI"', 'Inter', 'Roboto', '"Helvetica Neue"', 'Arial', 'sans-serif'],
        mono: ['ui-monospace', 'SFMono-Regular', 'Menlo', 'Consolas', '"Liberation Mono"', 'monospace'],
      },
      colors: {
        // Surfaces, text and the accent are daisyUI's base-* and primary colors; see app.source.css. It has no
        // colors for the following. light-dark() follows the color-scheme of the theme. The contrast of each
        // color is at least 4.5 : 1 against both surfaces of its theme (WCAG AA).

        // Secondary text.
        muted: 'light-dark(oklch(45% 0.02 270), oklch(74% 0.015 270))',
        // The four warning levels, for meters, charts and words: `text-level-warning`, `fill-level-safe`.
        // daisyUI has three such colors, but as backgrounds: its yellow text on white is too pale to read. No
        // level is shown only by its color: it also has a word and an icon.
        level: {
          safe: 'light-dark(oklch(48% 0.12 155), oklch(78% 0.14 155))',
          warning: 'light-dark(oklch(49% 0.1 75), oklch(85% 0.14 85))',
          critical: 'light-dark(oklch(50% 0.14 42), oklch(78% 0.13 55))',
          exceeded: 'light-dark(oklch(49% 0.19 25), oklch(76% 0.13 20))',
        },
      },
    },
  },
}
