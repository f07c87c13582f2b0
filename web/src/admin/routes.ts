import type { RouteRecordRaw } from 'vue-router';

export const adminRoutes: RouteRecordRaw[] = [
  { path: '/admin', component: () => import('./AdminPage.vue'), meta: { title: 'admin.title' } },
];
