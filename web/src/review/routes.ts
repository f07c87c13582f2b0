import type { RouteRecordRaw } from 'vue-router';

export const reviewRoutes: RouteRecordRaw[] = [
  {
    path: '/review',
    children: [
      { path: '', component: () => import('./ReviewPage.vue'), meta: { title: 'review.title' } },
      {
        path: ':caseId',
        component: () => import('./ReplayPage.vue'),
        props: true,
        // What became of a recording that cannot be replayed yet is told by the pages about cases.
        meta: { title: 'review.replay', alsoWords: ['cases', 'archive'] },
      },
    ],
  },
];
