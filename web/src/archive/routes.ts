import type { RouteRecordRaw } from 'vue-router';

export const archiveRoutes: RouteRecordRaw[] = [
  {
    path: '/archive',
    children: [
      { path: '', component: () => import('./ArchivePage.vue'), meta: { title: 'archive.title' } },
      {
        path: ':caseId',
        component: () => import('./KeepingPage.vue'),
        props: true,
        meta: { title: 'archive.one' },
      },
    ],
  },
];
