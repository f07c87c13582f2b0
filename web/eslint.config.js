import prettier from 'eslint-config-prettier';
import vue from 'eslint-plugin-vue';
import globals from 'globals';
import tseslint from 'typescript-eslint';

export default tseslint.config(
  { ignores: ['dist/', 'node_modules/', '.fonts/', 'src/wire/'] },
  ...tseslint.configs.strict,
  ...vue.configs['flat/recommended'],
  {
    files: ['**/*.vue'],
    languageOptions: { parserOptions: { parser: tseslint.parser } },
  },
  {
    files: ['src/**/*.{ts,vue}'],
    languageOptions: { globals: globals.browser },
    rules: {
      // Names are chosen from the glossary, so that a search finds every use of them.
      'no-restricted-exports': ['error', { restrictDefaultExports: { direct: true, named: true } }],
      'no-console': 'error',
      eqeqeq: ['error', 'always', { null: 'ignore' }],
      // The policy allows no style attribute; `:style` goes through the CSSOM and is fine.
      'vue/no-static-inline-styles': ['error', { allowBinding: true }],
      'vue/no-v-html': 'error',
      'vue/block-lang': ['error', { script: { lang: 'ts' } }],
      'vue/component-api-style': ['error', ['script-setup']],
      'vue/define-props-destructuring': 'off',
      'vue/require-default-prop': 'off',
      '@typescript-eslint/switch-exhaustiveness-check': 'off',
    },
  },
  {
    files: ['src/**/index.ts'],
    rules: { 'no-restricted-exports': 'off' },
  },
  {
    // The kernel of a call must run without a page around it.
    files: ['src/rtc/**/*.ts'],
    rules: { 'no-restricted-globals': ['error', 'document', 'window', 'localStorage'] },
  },
  prettier,
);
