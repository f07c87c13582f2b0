import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { Joined, ParticipantInfo } from '@/wire/signaling';
import { FakePeer, FakeSocket, fakeTrack, offer } from './fakes.test-support';
import { CallSession, type CallOptions } from './session';
import { elapsed_ms, lost_for_ms, recordingShown } from './state';

const official: ParticipantInfo = {
  participant_id: 'official',
  role: 'official',
  label_zh: '副州长',
  label_bo: null,
  label_en: 'Deputy governor',
  state: 'ready',
  muted: [],
  tracks: ['camera', 'microphone'],
  speaking: false,
};

let sockets: FakeSocket[];
let peers: FakePeer[];
let call: CallSession;
/** Whether something answers knocks. */
let isThere: boolean;
let knocks: number;

function begin(options: Partial<CallOptions> = {}): void {
  call = new CallSession({
    ws_url: 'ws://here/signal',
    grant: 'grant-1',
    random: () => 0.5,
    openSocket: () => {
      const socket = new FakeSocket();
      sockets.push(socket);
      return socket;
    },
    openPeer: () => {
      const peer = new FakePeer();
      peers.push(peer);
      return peer.asPeer();
    },
    knockAt: () => () => {
      knocks += 1;
      return isThere ? Promise.resolve() : Promise.reject(new Error('nobody'));
    },
    ...options,
  });
}

const socket = (): FakeSocket => sockets.at(-1) as FakeSocket;
const peer = (): FakePeer => peers.at(-1) as FakePeer;
/** Let promises run that are already due. */
const settle = () => vi.advanceTimersByTimeAsync(0);

function joined(id: string, change: Partial<Joined> = {}): Joined {
  return {
    type: 'joined',
    id,
    seq: 7,
    participant_id: 'me',
    resume_token: 'token-1',
    may: ['publish:camera', 'publish:microphone', 'publish:document'],
    room: {
      room_id: 'room',
      state: 'waiting',
      session_id: null,
      live_since: null,
      elapsed_ms: 0,
      slot_ends_at: null,
      participants: [official],
    },
    ...change,
  };
}

async function join(): Promise<void> {
  call.start();
  socket().open();
  socket().say(joined(socket().last('join').id));
  await settle();
}

/** Joined, then cut off, and the first new socket too: nothing answers. How many sockets that were. */
async function loseTheLine(): Promise<number> {
  await join();
  isThere = false;
  socket().cut();
  await vi.advanceTimersByTimeAsync(300);
  socket().cut();
  return sockets.length;
}

async function reconnect(): Promise<void> {
  const before = sockets.length;
  for (let waited = 0; waited < 2500 && sockets.length === before; waited += 100) {
    await vi.advanceTimersByTimeAsync(100);
  }
  socket().open();
}

beforeEach(() => {
  vi.useFakeTimers();
  sockets = [];
  peers = [];
  isThere = true;
  knocks = 0;
  begin();
});
afterEach(() => {
  call.dispose();
  vi.useRealTimers();
});

describe('joining', () => {
  test('says hello, joins with the grant and knows the room', async () => {
    await join();
    expect(socket().sent[0]).toMatchObject({ type: 'hello', versions: [1] });
    expect(socket().last('join').grant).toBe('grant-1');
    expect(call.state.signaling).toBe('open');
    expect(call.state.participants).toEqual([official]);
  });

  test('publishes only the tracks that it has and may send', async () => {
    call.setLocal('camera', fakeTrack('video'));
    call.setLocal('screen', fakeTrack('video'));
    await join();
    expect(socket().last('publish').tracks).toEqual(['camera']);
    call.setLocal('microphone', fakeTrack('audio'));
    expect(socket().last('publish').tracks).toEqual(['camera', 'microphone']);
  });

  test('a refused grant ends the try and keeps the reason', async () => {
    call.start();
    socket().open();
    const { id } = socket().last('join');
    socket().say({ type: 'error', id, code: 'grant_used', message: 'Used.', fatal: true });
    await settle();
    expect(call.state.signaling).toBe('refused');
    expect(call.state.refusal?.code).toBe('grant_used');
    await vi.advanceTimersByTimeAsync(60_000);
    expect(sockets).toHaveLength(1);
  });
});

describe('answering offers', () => {
  test('puts own tracks into send sections and finds theirs by the track table', async () => {
    const camera = fakeTrack('video');
    call.setLocal('camera', camera);
    await join();
    socket().say(
      offer(1, 0, [
        ['0', 'me', 'camera', 'send'],
        ['1', 'official', 'camera', 'receive'],
        ['2', 'official', 'microphone', 'receive'],
      ]),
    );
    await settle();
    expect(peer().transceivers[0]?.sender.track).toBe(camera);
    expect(socket().last('answer')).toMatchObject({
      revision: 1,
      sdp: '0=sendonly 1=recvonly 2=recvonly',
    });
    const theirs = call.state.remote.get('official');
    expect(theirs?.get('camera')).toBe(peer().transceivers[1]?.receiver.track);
    expect(theirs?.get('microphone')).toBe(peer().transceivers[2]?.receiver.track);
  });

  test('offers that come close together are answered in order on one peer', async () => {
    await join();
    socket().say(offer(1, 0, [['0', 'me', 'camera', 'send']]));
    socket().say(
      offer(2, 0, [
        ['0', 'me', 'camera', 'send'],
        ['1', 'me', 'document', 'send'],
      ]),
    );
    await settle();
    const revisions = socket().sent.flatMap((m) => (m.type === 'answer' ? [m.revision] : []));
    expect(revisions).toEqual([1, 2]);
    expect(peers).toHaveLength(1);
  });

  test('a higher leg closes the old peer and moves the same tracks to a new one', async () => {
    const camera = fakeTrack('video');
    call.setLocal('camera', camera);
    await join();
    socket().say(offer(1, 0, [['0', 'me', 'camera', 'send']]));
    await settle();
    socket().say(offer(2, 1, [['0', 'me', 'camera', 'send']]));
    await settle();
    expect(peers[0]?.isClosed).toBe(true);
    expect(peers[1]?.transceivers[0]?.sender.track).toBe(camera);
  });

  test('a document camera that is switched on later goes into its own section', async () => {
    call.setLocal('camera', fakeTrack('video'));
    await join();
    socket().say(offer(1, 0, [['0', 'me', 'camera', 'send']]));
    await settle();
    const paper = fakeTrack('video');
    call.setLocal('document', paper);
    socket().say(
      offer(2, 0, [
        ['0', 'me', 'camera', 'send'],
        ['1', 'me', 'document', 'send'],
      ]),
    );
    await settle();
    expect(peer().transceivers[1]?.sender.track).toBe(paper);
    expect(paper.contentHint).toBe('detail');
  });
});

describe('a lost socket', () => {
  test('is resumed with the last seq while media goes on', async () => {
    await join();
    socket().say(offer(1, 0, [['0', 'me', 'camera', 'send']]));
    await settle();
    peer().become('connected');
    socket().say({ type: 'participant', seq: 9, participant: official });
    socket().cut();
    expect(call.state.signaling).toBe('reconnecting');
    expect(call.state.media).toBe('connected');
    await reconnect();
    expect(socket().last('resume')).toMatchObject({ resume_token: 'token-1', last_seq: 9 });
    socket().say({
      type: 'resumed',
      id: socket().last('resume').id,
      seq: 9,
      resume_token: 'token-2',
      media: 'kept',
      room: null,
    });
    await settle();
    expect(call.state.signaling).toBe('open');
    expect(peer().isClosed).toBe(false);
    expect(lost_for_ms(call.state, performance.now())).toBeNull();
  });

  test('of a server that restarts is tried again, with the same seat', async () => {
    await join();
    socket().cut(1012);
    await reconnect();
    const { id } = socket().last('resume');
    socket().say({ type: 'error', id, code: 'restarting', message: 'Wait.', fatal: true });
    await reconnect();
    expect(socket().last('resume').resume_token).toBe('token-1');
    expect(call.state.signaling).toBe('reconnecting');
  });

  test('whose seat went to another screen does not fight for it', async () => {
    await join();
    socket().cut(4001);
    await vi.advanceTimersByTimeAsync(10_000);
    expect(sockets).toHaveLength(1);
    expect(call.state.refusal?.code).toBe('replaced');
  });

  test('is tried again at once at first and at most every two seconds', async () => {
    await join();
    socket().cut();
    const tries: number[] = [];
    for (let waited = 0; waited < 10_000; waited += 100) {
      const before = sockets.length;
      await vi.advanceTimersByTimeAsync(100);
      if (sockets.length > before) {
        tries.push(waited + 100);
        socket().cut();
      }
    }
    expect(tries[0]).toBe(300);
    const gaps = tries.slice(1).map((at, index) => at - (tries[index] ?? 0));
    expect(Math.max(...gaps)).toBeLessThanOrEqual(2100);
    expect(tries.length).toBeGreaterThanOrEqual(5);
  });

  test('opens nothing while nothing answers, and at once when something does', async () => {
    const before = await loseTheLine();
    await vi.advanceTimersByTimeAsync(10_000);
    expect(sockets).toHaveLength(before);
    expect(knocks).toBeGreaterThan(10);
    isThere = true;
    await vi.advanceTimersByTimeAsync(800);
    expect(sockets).toHaveLength(before + 1);
  });

  test('that hangs in its opening gives way to another when something answers', async () => {
    await join();
    isThere = false;
    socket().cut();
    await vi.advanceTimersByTimeAsync(5000);
    const hanging = socket();
    isThere = true;
    await vi.advanceTimersByTimeAsync(800);
    expect(hanging.isClosed).toBe(true);
    expect(socket()).not.toBe(hanging);
    socket().open();
    const opened = sockets.length;
    await vi.advanceTimersByTimeAsync(4000);
    expect(sockets).toHaveLength(opened);
  });

  test('tries the socket itself where no knock is ever answered', async () => {
    const before = await loseTheLine();
    await vi.advanceTimersByTimeAsync(20_000);
    expect(sockets).toHaveLength(before + 1);
  });

  test('hears that the line is back while the socket that it tried meanwhile hangs', async () => {
    const before = await loseTheLine();
    await vi.advanceTimersByTimeAsync(17_000);
    expect(sockets).toHaveLength(before + 1);
    const hanging = socket();
    isThere = true;
    await vi.advanceTimersByTimeAsync(800);
    expect(hanging.isClosed).toBe(true);
    expect(sockets).toHaveLength(before + 2);
  });

  test('goes on listening for the line when that socket is given up', async () => {
    const before = await loseTheLine();
    await vi.advanceTimersByTimeAsync(17_000);
    socket().cut();
    isThere = true;
    await vi.advanceTimersByTimeAsync(800);
    expect(sockets).toHaveLength(before + 2);
  });

  test('an answer that never arrived is sent again after the resume', async () => {
    await join();
    const first = socket();
    first.say(offer(3, 0, [['0', 'me', 'camera', 'send']]));
    await settle();
    expect(first.count('answer')).toBe(1);
    first.cut();
    await reconnect();
    socket().say({
      type: 'resumed',
      id: socket().last('resume').id,
      seq: 7,
      resume_token: 'token-1',
      media: 'kept',
      room: null,
    });
    await settle();
    expect(socket().last('answer').revision).toBe(3);
  });

  test('that answers no ping is given up and replaced', async () => {
    await join();
    await vi.advanceTimersByTimeAsync(5000 * 4 + 400);
    expect(sockets).toHaveLength(2);
    expect(sockets[0]?.isClosed).toBe(true);
  });

  test('whose seat is gone asks for a new grant and joins afresh', async () => {
    begin({ renew: () => Promise.resolve({ grant: 'grant-2', ws_url: 'ws://here/signal' }) });
    await join();
    socket().cut();
    await reconnect();
    const { id } = socket().last('resume');
    socket().say({ type: 'error', id, code: 'unknown_seat', message: 'Gone.', fatal: true });
    await reconnect();
    expect(socket().last('join').grant).toBe('grant-2');
  });

  test('never knocks with a used grant while a new one is fetched', async () => {
    let give: (entry: { grant: string; ws_url: string }) => void = () => undefined;
    begin({ renew: () => new Promise((resolve) => (give = resolve)) });
    await join();
    socket().cut();
    await reconnect();
    const { id } = socket().last('resume');
    socket().say({ type: 'error', id, code: 'unknown_seat', message: 'Gone.', fatal: true });
    await settle();
    socket().cut();
    await vi.advanceTimersByTimeAsync(10_000);
    expect(sockets).toHaveLength(2);
    give({ grant: 'grant-2', ws_url: 'ws://here/signal' });
    await reconnect();
    expect(socket().last('join').grant).toBe('grant-2');
  });

  test('whose talk is over is told so plainly', async () => {
    const over = Object.assign(new Error('Over.'), { code: 'session_ended' });
    begin({ renew: () => Promise.reject(over) });
    await join();
    socket().cut();
    await reconnect();
    const { id } = socket().last('resume');
    socket().say({ type: 'error', id, code: 'unknown_seat', message: 'Gone.', fatal: true });
    await settle();
    expect(call.state.refusal).toEqual({ code: 'session_ended', message: 'Over.' });
  });
});

describe('lost media', () => {
  test('asks for a new leg when the transport has failed', async () => {
    await join();
    socket().say(offer(1, 0, [['0', 'me', 'camera', 'send']]));
    await settle();
    peer().become('failed');
    expect(call.state.media).toBe('interrupted');
    expect(call.state.signaling).toBe('open');
    expect(socket().count('media_lost')).toBe(1);
  });

  test('that heals by itself asks for nothing', async () => {
    await join();
    socket().say(offer(1, 0, [['0', 'me', 'camera', 'send']]));
    await settle();
    peer().become('disconnected');
    await vi.advanceTimersByTimeAsync(400);
    peer().become('connected');
    await vi.advanceTimersByTimeAsync(5000);
    expect(socket().count('media_lost')).toBe(0);
    expect(call.state.media_lost_at_ms).toBeNull();
  });

  test('that the server does not hear any more gets a new leg, unless it is heard again', async () => {
    await join();
    socket().say(offer(1, 0, [['0', 'me', 'camera', 'send']]));
    await settle();
    peer().become('connected');
    const me: ParticipantInfo = { ...official, participant_id: 'me', role: 'petitioner' };
    socket().say({ type: 'participant', seq: 8, participant: { ...me, state: 'silent' } });
    await vi.advanceTimersByTimeAsync(1000);
    socket().say({ type: 'participant', seq: 9, participant: me });
    await vi.advanceTimersByTimeAsync(3000);
    expect(socket().count('media_lost')).toBe(0);
    socket().say({ type: 'participant', seq: 10, participant: { ...me, state: 'silent' } });
    await vi.advanceTimersByTimeAsync(1600);
    expect(socket().count('media_lost')).toBe(1);
  });

  test('is asked for again when the wish was refused', async () => {
    await join();
    socket().say(offer(1, 0, [['0', 'me', 'camera', 'send']]));
    await settle();
    peer().become('failed');
    const { id } = socket().last('media_lost');
    socket().say({ type: 'error', id, code: 'too_many', message: 'Later.', fatal: false });
    await vi.advanceTimersByTimeAsync(1100);
    expect(socket().count('media_lost')).toBe(2);
  });

  test('closed by the server for sending too much is asked for again, and the page says why', async () => {
    await join();
    socket().say(offer(1, 0, [['0', 'me', 'camera', 'send']]));
    await settle();
    const words = { id: null, message: 'Too much.', fatal: false };
    socket().say({ type: 'error', code: 'too_much_sent', ...words });
    expect(call.state.isCutOff).toBe(true);
    expect(socket().count('media_lost')).toBe(1);
    await vi.advanceTimersByTimeAsync(31_000);
    expect(call.state.isCutOff).toBe(false);
  });

  test('that failed while signaling was away is asked for after the resume, but not twice', async () => {
    await join();
    socket().say(offer(1, 0, [['0', 'me', 'camera', 'send']]));
    await settle();
    for (const [media, asked] of [
      ['kept', 1],
      ['new_leg', 0],
    ] as const) {
      socket().cut();
      peer().become('failed');
      await reconnect();
      const { id } = socket().last('resume');
      socket().say({ type: 'resumed', id, seq: 7, resume_token: 'token-2', media, room: null });
      await settle();
      expect(socket().count('media_lost')).toBe(asked);
    }
  });
});

describe('during the talk', () => {
  test('mute silences the track here and tells the server', async () => {
    const microphone = fakeTrack('audio');
    call.setLocal('microphone', microphone);
    await join();
    call.setMuted('microphone', true);
    expect(microphone.enabled).toBe(false);
    expect(socket().last('mute')).toMatchObject({ track: 'microphone', muted: true });
  });

  test('the session clock runs on between messages and recording needs fresh proof', async () => {
    await join();
    socket().say({
      type: 'room',
      seq: 8,
      state: 'live',
      session_id: 's',
      live_since: '2026-05-25T01:00:00Z',
      elapsed_ms: 1000,
    });
    expect(recordingShown(call.state, performance.now())).toBe('preparing');
    socket().say({
      type: 'recording',
      state: 'recording',
      tracks: [],
      elapsed_ms: 2000,
      trouble: null,
      lost_packets: 0,
      late_ms: 0,
      unheard: [],
    });
    expect(recordingShown(call.state, performance.now())).toBe('recording');
    await vi.advanceTimersByTimeAsync(3000);
    expect(elapsed_ms(call.state, performance.now())).toBe(5000);
    await vi.advanceTimersByTimeAsync(3000);
    expect(recordingShown(call.state, performance.now())).toBe('preparing');
  });

  test('the end closes media, keeps the reason and does not reconnect', async () => {
    await join();
    socket().say(offer(1, 0, [['0', 'me', 'camera', 'send']]));
    await settle();
    socket().say({ type: 'ended', seq: 9, reason: 'ended_by_official', session_id: 's' });
    await vi.advanceTimersByTimeAsync(60_000);
    expect(call.state.ended).toEqual({ reason: 'ended_by_official', session_id: 's' });
    expect(peer().isClosed).toBe(true);
    expect(sockets).toHaveLength(1);
  });

  test('a message of an unknown type and text that is not JSON change nothing', async () => {
    await join();
    const before = call.state;
    socket().onmessage?.({ data: '{"type":"fanfare"}' });
    socket().onmessage?.({ data: 'not json' });
    expect({ ...call.state }).toEqual({ ...before });
  });
});
