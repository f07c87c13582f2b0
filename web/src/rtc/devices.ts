// Cameras and microphones of this machine. Permission is granted by the kiosk's policy or the browser;
// what can go wrong has a code of its own, so that a page can say what to do.

export class DeviceTrouble extends Error {
  constructor(
    readonly code: 'device_refused' | 'device_missing' | 'device_busy' | 'device_failed',
  ) {
    super(code);
    this.name = 'DeviceTrouble';
  }
}

function toTrouble(error: unknown): DeviceTrouble {
  if (!navigator.mediaDevices) return new DeviceTrouble('device_refused');
  const name = error instanceof DOMException ? error.name : '';
  switch (name) {
    case 'NotAllowedError':
    case 'SecurityError':
      return new DeviceTrouble('device_refused');
    case 'NotFoundError':
    case 'OverconstrainedError':
      return new DeviceTrouble('device_missing');
    case 'NotReadableError':
    case 'AbortError':
      return new DeviceTrouble('device_busy');
    default:
      return new DeviceTrouble('device_failed');
  }
}

async function open(constraints: MediaStreamConstraints): Promise<MediaStream> {
  try {
    return await navigator.mediaDevices.getUserMedia(constraints);
  } catch (error) {
    throw toTrouble(error);
  }
}

const FACE: MediaTrackConstraints = {
  width: { ideal: 1280 },
  height: { ideal: 720 },
  frameRate: { ideal: 25, max: 30 },
};
/** A page of small print needs the pixels, not the motion. */
const PAPER: MediaTrackConstraints = {
  width: { ideal: 1920 },
  height: { ideal: 1080 },
  frameRate: { ideal: 10, max: 15 },
};

export async function openCamera(device_id?: string): Promise<MediaStreamTrack> {
  const stream = await open({
    video: device_id ? { ...FACE, deviceId: { exact: device_id } } : FACE,
  });
  return first(stream.getVideoTracks());
}

export async function openDocumentCamera(device_id: string): Promise<MediaStreamTrack> {
  const stream = await open({ video: { ...PAPER, deviceId: { exact: device_id } } });
  return first(stream.getVideoTracks());
}

export async function openMicrophone(): Promise<MediaStreamTrack> {
  const stream = await open({
    audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true },
  });
  return first(stream.getAudioTracks());
}

function first(tracks: MediaStreamTrack[]): MediaStreamTrack {
  const [track] = tracks;
  if (!track) throw new DeviceTrouble('device_missing');
  return track;
}

/** Cameras by id and name, the one in use first. Names are only known after permission. */
export async function listCameras(in_use?: string): Promise<MediaDeviceInfo[]> {
  const devices = await navigator.mediaDevices.enumerateDevices();
  return devices
    .filter((device) => device.kind === 'videoinput')
    .sort((a, b) => Number(b.deviceId === in_use) - Number(a.deviceId === in_use));
}

/** The second camera of a kiosk, by name where the name says so, else simply the other one. */
export async function findDocumentCamera(face: MediaStreamTrack | null): Promise<string | null> {
  const in_use = face?.getSettings().deviceId;
  const others = (await listCameras(in_use)).filter((device) => device.deviceId !== in_use);
  const named = others.find((device) => /doc|scan|高拍|实物|展台/i.test(device.label));
  return (named ?? others[0])?.deviceId ?? null;
}

/** How loud a microphone is: call `level()` at will, 0 … 1. `close()` when done. */
export function openLevelMeter(track: MediaStreamTrack): {
  level: () => number;
  close: () => void;
} {
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  analyser.fftSize = 1024;
  context.createMediaStreamSource(new MediaStream([track])).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  return {
    level() {
      analyser.getFloatTimeDomainData(samples);
      let sum = 0;
      for (const sample of samples) sum += sample * sample;
      const decibels = 10 * Math.log10(sum / samples.length + 1e-12);
      // −60 dB is a quiet room, −15 dB a firm voice.
      return Math.min(1, Math.max(0, (decibels + 60) / 45));
    },
    close: () => void context.close(),
  };
}

/** Record `track` for a while and give it back to be played. */
export async function recordBriefly(track: MediaStreamTrack, milliseconds: number): Promise<Blob> {
  const recorder = new MediaRecorder(new MediaStream([track]));
  const parts: Blob[] = [];
  const done = new Promise<Blob>((resolve, reject) => {
    recorder.ondataavailable = ({ data }) => parts.push(data);
    recorder.onstop = () => resolve(new Blob(parts, { type: recorder.mimeType }));
    recorder.onerror = () => reject(new DeviceTrouble('device_failed'));
  });
  recorder.start();
  setTimeout(() => {
    if (recorder.state !== 'inactive') recorder.stop();
  }, milliseconds);
  return done;
}
