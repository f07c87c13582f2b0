import type { RouteRecordRaw } from 'vue-router';

export const officeRoutes: RouteRecordRaw[] = [
  { path: '/office', component: () => import('./OfficePage.vue'), meta: { title: 'office.title' } },
];
