// One address per place. Every place keeps its own list of pages; its code and its words are fetched
// when someone first goes there.
import { createRouter, createWebHistory, type RouteRecordRaw } from 'vue-router';
import { whoAmI } from '@/api/session';
import { adminRoutes } from '@/admin/routes';
import { archiveRoutes } from '@/archive/routes';
import { casesRoutes } from '@/cases/routes';
import { deskRoutes } from '@/desk/routes';
import { i18n, loadWords, type Place } from '@/i18n';
import { kioskRoutes } from '@/kiosk/routes';
import { officeRoutes } from '@/office/routes';
import { publicRoutes } from '@/public/routes';
import { reviewRoutes } from '@/review/routes';
import { scheduleRoutes } from '@/schedule/routes';

declare module 'vue-router' {
  interface RouteMeta {
    /** Whose words are needed; also the i18n catalogue. */
    place?: Place;
    /** Further catalogues, e.g. a case shown inside a replay. */
    alsoWords?: Place[];
    /** Only for people who are signed in. What they may see is decided by the server. */
    staff?: boolean;
    /** i18n key of the page's title. */
    title?: string;
  }
}

/** Give every page of a place its words, and staff pages their guard. */
function inPlace(place: Place, staff: boolean, routes: RouteRecordRaw[]): RouteRecordRaw[] {
  return routes.map((route) => ({ ...route, meta: { place, staff, ...route.meta } }));
}

export const router = createRouter({
  history: createWebHistory(),
  scrollBehavior: (_to, _from, saved) => saved ?? { top: 0 },
  routes: [
    ...inPlace('public', false, publicRoutes),
    ...inPlace('kiosk', false, kioskRoutes),
    ...inPlace('desk', true, deskRoutes),
    ...inPlace('office', true, officeRoutes),
    ...inPlace('schedule', true, scheduleRoutes),
    ...inPlace('cases', true, casesRoutes),
    ...inPlace('review', true, reviewRoutes),
    ...inPlace('archive', true, archiveRoutes),
    ...inPlace('admin', true, adminRoutes),
    {
      path: '/sign-in',
      component: () => import('@/sign-in/SignInPage.vue'),
      meta: { title: 'common.sign_in.title' },
    },
    {
      path: '/:rest(.*)*',
      component: () => import('@/public/NotFoundPage.vue'),
      meta: { place: 'public', title: 'public.not_found.title' },
    },
  ],
});

router.beforeEach(async (to) => {
  if (!to.meta.staff) return true;
  const person = await whoAmI();
  return person ? true : { path: '/sign-in', query: { next: to.fullPath } };
});

router.beforeResolve(async (to) => {
  const places = [to.meta.place, ...(to.meta.alsoWords ?? [])];
  await loadWords(...places.filter((place) => place !== undefined));
  if (to.meta.place === 'kiosk') document.documentElement.dataset['density'] = 'hall';
  else delete document.documentElement.dataset['density'];
});

router.afterEach((to) => {
  const { t } = i18n.global;
  const product = t('common.product');
  document.title = to.meta.title ? `${t(to.meta.title)} · ${product}` : product;
});
