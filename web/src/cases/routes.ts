import type { RouteRecordRaw } from 'vue-router';

export const casesRoutes: RouteRecordRaw[] = [
  {
    path: '/cases',
    children: [
      { path: '', component: () => import('./CasesPage.vue'), meta: { title: 'cases.title' } },
      {
        path: ':caseId',
        component: () => import('./CasePage.vue'),
        props: true,
        // A deleted recording is told of in the archive's words.
        meta: { title: 'cases.one', alsoWords: ['archive'] },
      },
    ],
  },
];
