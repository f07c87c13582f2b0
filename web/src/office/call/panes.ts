// Who is shown where: the visitor large, the visitor's papers beside, everyone else small. Pure.
import type { ParticipantInfo } from '@/wire/signaling';

export interface Panes {
  large: ParticipantInfo | null;
  /** Whoever publishes a document camera or a screen. */
  paper: { participant: ParticipantInfo; track: 'document' | 'screen' } | null;
  small: ParticipantInfo[];
}

/** A hall screen shows the talk to others, so it is always seen to be there. */
const ORDER = [
  'petitioner',
  'interpreter',
  'department',
  'desk',
  'official',
  'observer',
  'device',
  'display',
] as const;

export function arrange(participants: readonly ParticipantInfo[], me: string): Panes {
  const here = participants.filter((each) => each.state !== 'left');
  const others = here
    .filter((each) => each.participant_id !== me)
    .sort((a, b) => ORDER.indexOf(a.role) - ORDER.indexOf(b.role));
  const large = others[0] ?? null;
  const paper =
    others
      .map((participant) => ({ participant, track: paperOf(participant) }))
      .find((each) => each.track !== null) ?? null;
  return {
    large,
    paper: paper?.track ? { participant: paper.participant, track: paper.track } : null,
    small: others.slice(1).filter((each) => !isOnlyPaper(each)),
  };
}

/** A document camera has its place beside the visitor and no face. */
function isOnlyPaper(participant: ParticipantInfo): boolean {
  return participant.role === 'device' && !participant.tracks.includes('camera');
}

function paperOf(participant: ParticipantInfo): 'document' | 'screen' | null {
  if (participant.tracks.includes('document')) return 'document';
  return participant.tracks.includes('screen') ? 'screen' : null;
}
