import type { RouteRecordRaw } from 'vue-router';

export const deskRoutes: RouteRecordRaw[] = [
  { path: '/desk', component: () => import('./DeskPage.vue'), meta: { title: 'desk.title' } },
];
