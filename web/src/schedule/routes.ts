import type { RouteRecordRaw } from 'vue-router';

export const scheduleRoutes: RouteRecordRaw[] = [
  {
    path: '/schedule',
    component: () => import('./SchedulePage.vue'),
    meta: { title: 'schedule.title' },
  },
  {
    path: '/schedule/new',
    component: () => import('./PublishPage.vue'),
    meta: { title: 'schedule.publish.title' },
  },
];
