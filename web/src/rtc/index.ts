export { CallSession, type CallOptions, type Entry } from './session';
export { SignalingError } from './socket';
export { elapsed_ms, INITIAL, lost_for_ms, recordingShown, type CallState } from './state';
export { patience, type Patience } from './patience';
export type { RemoteTracks } from './media';
export {
  DeviceTrouble,
  findDocumentCamera,
  listCameras,
  openCamera,
  openDocumentCamera,
  openLevelMeter,
  openMicrophone,
  recordBriefly,
} from './devices';
