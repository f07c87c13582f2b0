import type { RouteRecordRaw } from 'vue-router';

export const deskRoutes: RouteRecordRaw[] = [
  { path: '/desk', component: () => import('./DeskPage.vue'), meta: { title: 'desk.title' } },
  {
    path: '/desk/register',
    component: () => import('./RegisterPage.vue'),
    meta: { title: 'desk.register.title' },
  },
  {
    path: '/desk/kiosks',
    component: () => import('./KiosksPage.vue'),
    meta: { title: 'desk.kiosks.title' },
  },
  {
    path: '/desk/call/:appointmentId',
    component: () => import('@/office/call/CallPage.vue'),
    props: (route) => ({ appointmentId: String(route.params['appointmentId']), as: 'desk' }),
    meta: { title: 'office.call.title', alsoWords: ['office'] },
  },
];
