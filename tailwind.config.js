/** @type {import('tailwindcss').Config} */
export default {
  theme: {
    // One scale of type and no other. A size carries its line height.
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
        // The reader's own; nothing is fetched for it.
        sans: ['-apple-system', 'BlinkMacSystemFont', '"Segoe UI"', 'Inter', 'Roboto', '"Helvetica Neue"', 'Arial', 'sans-serif'],
        mono: ['ui-monospace', 'SFMono-Regular', 'Menlo', 'Consolas', '"Liberation Mono"', 'monospace'],
      },
      colors: {
        // The surfaces, the text and the one accent are daisyUI's base-* and primary: see app.source.css. What
        // follows are the colours it has none for. light-dark() follows the theme by its color-scheme; each is at
        // least 4.5 : 1 against both surfaces of its theme (WCAG AA).

        // Text that explains, beside text that answers.
        muted: 'light-dark(oklch(45% 0.02 270), oklch(74% 0.015 270))',
        // The four warning levels, for meters, charts and words: `text-level-warning`, `fill-level-safe`. daisyUI has
        // three such colours, made to lie behind text: its yellow on white is too pale to be read. No level is
        // told by colour alone: a word and an icon stand beside it.
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
