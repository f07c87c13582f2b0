import { createApp } from 'vue';
import App from './App.vue';
import { i18n, loadWords, rememberedLocale, setLocale } from './i18n';
import { router } from './router';
import './styles/fonts';
import './styles/tokens.css';
import './styles/base.css';

async function start(): Promise<void> {
  if (!location.pathname.startsWith('/kiosk')) await setLocale(rememberedLocale());
  await loadWords();
  createApp(App).use(i18n).use(router).mount('#app');
}

void start();
