import type { RouteRecordRaw } from 'vue-router';

export const adminRoutes: RouteRecordRaw[] = [
  {
    path: '/admin',
    component: () => import('./AdminPlace.vue'),
    children: [
      {
        path: '',
        component: () => import('./HealthPage.vue'),
        meta: { title: 'admin.health.title' },
      },
      {
        path: 'kiosks',
        component: () => import('./KiosksPage.vue'),
        meta: { title: 'admin.kiosks.title' },
      },
      {
        path: 'people',
        component: () => import('./PeoplePage.vue'),
        meta: { title: 'admin.people.title' },
      },
      {
        path: 'units',
        component: () => import('./UnitsPage.vue'),
        meta: { title: 'admin.units.title' },
      },
      {
        path: 'audit',
        component: () => import('./AuditPage.vue'),
        meta: { title: 'admin.audit.title' },
      },
    ],
  },
];
