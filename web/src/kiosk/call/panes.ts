// Who is shown large and who small. Pure: participants and their tracks → panes.
import type { RemoteTracks } from '@/rtc';
import type { ParticipantInfo } from '@/wire/signaling';

export interface Pane {
  key: string;
  participant: ParticipantInfo;
  picture: MediaStreamTrack | undefined;
  sound: MediaStreamTrack | undefined;
  kind: 'face' | 'paper';
}

/** Whether the presiding official has gone out of the talk, on purpose or not; coming in is being there. */
export function isOfficialAway(participants: readonly ParticipantInfo[]): boolean {
  const officials = participants.filter((each) => each.role === 'official');
  const isHere = officials.some((each) => each.state === 'joining' || each.state === 'ready');
  return officials.length > 0 && !isHere;
}

/** The presiding official first; papers and screens before the faces of others. */
export function panesOf(
  participants: readonly ParticipantInfo[],
  remote: RemoteTracks,
  me: string | null,
): { main: Pane | null; others: Pane[] } {
  const faces: Pane[] = [];
  const papers: Pane[] = [];
  for (const participant of participants) {
    if (participant.participant_id === me || participant.state === 'left') continue;
    const tracks = remote.get(participant.participant_id);
    // A document camera has papers to show and no face.
    if (participant.role !== 'device' || participant.tracks.includes('camera')) {
      faces.push({
        key: participant.participant_id,
        participant,
        picture: participant.tracks.includes('camera') ? tracks?.get('camera') : undefined,
        sound: tracks?.get('microphone'),
        kind: 'face',
      });
    }
    for (const name of ['document', 'screen'] as const) {
      const picture = tracks?.get(name);
      if (!picture || !participant.tracks.includes(name)) continue;
      const key = `${participant.participant_id}-${name}`;
      papers.push({ key, participant, picture, sound: undefined, kind: 'paper' });
    }
  }
  const main = faces.find((pane) => pane.participant.role === 'official') ?? faces[0] ?? null;
  return { main, others: [...papers, ...faces.filter((pane) => pane !== main)] };
}
