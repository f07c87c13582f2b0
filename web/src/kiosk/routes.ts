import type { RouteRecordRaw } from 'vue-router';

export const kioskRoutes: RouteRecordRaw[] = [];
