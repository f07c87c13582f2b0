import type { RouteRecordRaw } from 'vue-router';

export const adminRoutes: RouteRecordRaw[] = [
  {
    path: '/admin',
    component: () => import('./HealthPage.vue'),
    meta: { title: 'admin.health.title' },
  },
  {
    path: '/admin/kiosks',
    component: () => import('./KiosksPage.vue'),
    meta: { title: 'admin.kiosks.title' },
  },
  {
    path: '/admin/people',
    component: () => import('./PeoplePage.vue'),
    meta: { title: 'admin.people.title' },
  },
  {
    path: '/admin/units',
    component: () => import('./UnitsPage.vue'),
    meta: { title: 'admin.units.title' },
  },
  {
    path: '/admin/audit',
    component: () => import('./AuditPage.vue'),
    meta: { title: 'admin.audit.title' },
  },
];
