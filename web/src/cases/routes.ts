import type { RouteRecordRaw } from 'vue-router';

export const casesRoutes: RouteRecordRaw[] = [
  { path: '/cases', component: () => import('./CasesPage.vue'), meta: { title: 'cases.title' } },
];
