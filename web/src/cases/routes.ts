import type { RouteRecordRaw } from 'vue-router';

export const casesRoutes: RouteRecordRaw[] = [
  { path: '/cases', component: () => import('./CasesPage.vue'), meta: { title: 'cases.title' } },
  {
    path: '/cases/:caseId',
    component: () => import('./CasePage.vue'),
    props: true,
    meta: { title: 'cases.one' },
  },
];
