// How a state of an appointment looks, wherever it is shown. The word itself is `common.appointment_state.*`.
import type { AppointmentState } from '@/wire/api';
import type { IconName } from './icons';

type Look = { kind: 'plain' | 'good' | 'caution' | 'alarm'; icon: IconName };

export function lookOfState(state: AppointmentState): Look {
  switch (state) {
    case 'requested':
      return { kind: 'caution', icon: 'clock' };
    case 'confirmed':
      return { kind: 'plain', icon: 'calendar' };
    case 'checked_in':
      return { kind: 'good', icon: 'person' };
    case 'called':
      return { kind: 'good', icon: 'camera' };
    case 'held':
      return { kind: 'plain', icon: 'check' };
    case 'no_show':
      return { kind: 'alarm', icon: 'close' };
    case 'cancelled':
      return { kind: 'plain', icon: 'close' };
    case 'redirected':
      return { kind: 'plain', icon: 'forward' };
    default: {
      const never: never = state;
      return never;
    }
  }
}
