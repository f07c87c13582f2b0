// The kiosk's camera and microphone, opened once for check and call and closed with the wipe.
import { openCamera, openMicrophone } from '@/rtc';

let camera: MediaStreamTrack | null = null;
let microphone: MediaStreamTrack | null = null;

const isLive = (track: MediaStreamTrack | null): track is MediaStreamTrack =>
  track?.readyState === 'live';

/** Throws DeviceTrouble. */
export async function ourCamera(): Promise<MediaStreamTrack> {
  if (!isLive(camera)) camera = await openCamera();
  return camera;
}

/** Throws DeviceTrouble. */
export async function ourMicrophone(): Promise<MediaStreamTrack> {
  if (!isLive(microphone)) microphone = await openMicrophone();
  return microphone;
}

export function releaseDevices(): void {
  camera?.stop();
  microphone?.stop();
  camera = null;
  microphone = null;
}
