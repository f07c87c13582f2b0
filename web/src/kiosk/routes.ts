import type { RouteRecordRaw } from 'vue-router';

declare module 'vue-router' {
  interface RouteMeta {
    /** `never`: a person may sit here without touching anything, e.g. while waiting or talking. */
    idle?: 'normal' | 'long' | 'never';
    /** The call fills the screen; the frame keeps only its help. */
    stage?: boolean;
  }
}

export const kioskRoutes: RouteRecordRaw[] = [
  {
    path: '/kiosk',
    component: () => import('./KioskFrame.vue'),
    meta: { alsoWords: ['public'] },
    children: [
      { path: '', component: () => import('./HomePage.vue') },
      { path: 'enrol', component: () => import('./EnrolPage.vue'), meta: { idle: 'never' } },
      { path: 'book', component: () => import('./book/BookPage.vue') },
      { path: 'arrive', component: () => import('./ArrivePage.vue') },
      { path: 'notice', component: () => import('./NoticePage.vue'), meta: { idle: 'long' } },
      { path: 'check', component: () => import('./CheckPage.vue') },
      { path: 'waiting', component: () => import('./WaitingPage.vue'), meta: { idle: 'never' } },
      {
        path: 'call',
        component: () => import('./call/CallPage.vue'),
        meta: { idle: 'never', stage: true },
      },
      { path: 'result', component: () => import('./ResultPage.vue'), meta: { idle: 'long' } },
      { path: 'ask', component: () => import('./AskPage.vue') },
      { path: 'guide', component: () => import('./GuidePage.vue') },
    ],
  },
];
