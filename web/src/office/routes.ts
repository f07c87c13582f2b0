import type { RouteRecordRaw } from 'vue-router';

export const officeRoutes: RouteRecordRaw[] = [
  { path: '/office', component: () => import('./OfficePage.vue'), meta: { title: 'office.title' } },
  {
    path: '/office/call/:appointmentId',
    component: () => import('./call/CallPage.vue'),
    props: (route) => ({ appointmentId: String(route.params['appointmentId']), as: 'official' }),
    meta: { title: 'office.call.title' },
  },
  {
    path: '/office/after/:appointmentId',
    component: () => import('./AfterPage.vue'),
    props: true,
    meta: { title: 'office.after.title' },
  },
];
