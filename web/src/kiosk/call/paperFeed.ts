// What others see of the paper. Upright and moving it is the camera itself; turned or held still it is
// drawn, so that everyone sees what the person here arranged.
const REDRAW_EVERY_MS = 200;

export type Turns = 0 | 1 | 2 | 3;

export interface PaperView {
  turns: Turns;
  isFrozen: boolean;
}

export class PaperFeed {
  private readonly video = document.createElement('video');
  private readonly canvas = document.createElement('canvas');
  private drawn: MediaStreamTrack | null = null;
  private redraw: ReturnType<typeof setInterval> | undefined;
  private view: PaperView = { turns: 0, isFrozen: false };

  /** Owns `camera` from now on and stops it with `close`. */
  constructor(private readonly camera: MediaStreamTrack) {
    this.video.muted = true;
    this.video.srcObject = new MediaStream([camera]);
    void this.video.play();
  }

  /** The track to publish for this view. It may be another one than before. */
  show(view: PaperView): MediaStreamTrack {
    const wasFrozen = this.view.isFrozen;
    this.view = view;
    if (view.turns === 0 && !view.isFrozen) {
      this.stopDrawing();
      return this.camera;
    }
    // A frozen page may still be turned: only a fresh freeze keeps what is in the picture now.
    if (view.isFrozen && !wasFrozen) this.video.pause();
    if (!view.isFrozen && wasFrozen) void this.video.play();
    this.draw();
    this.redraw ??= setInterval(() => this.draw(), REDRAW_EVERY_MS);
    this.drawn ??= first(this.canvas.captureStream().getVideoTracks());
    return this.drawn;
  }

  /** The page as it is shown now, as JPEG at the camera's full size. */
  async grab(): Promise<Blob> {
    this.draw();
    return new Promise((resolve, reject) => {
      this.canvas.toBlob(
        (blob) => (blob ? resolve(blob) : reject(new Error('the page could not be drawn'))),
        'image/jpeg',
        0.92,
      );
    });
  }

  close(): void {
    this.stopDrawing();
    this.video.srcObject = null;
    this.camera.stop();
  }

  private draw(): void {
    const { videoWidth: width, videoHeight: height } = this.video;
    const context = this.canvas.getContext('2d');
    if (!context || !width || !height) return;
    const isSideways = this.view.turns % 2 === 1;
    const [wide, high] = isSideways ? [height, width] : [width, height];
    if (this.canvas.width !== wide || this.canvas.height !== high) {
      this.canvas.width = wide;
      this.canvas.height = high;
    }
    context.setTransform(1, 0, 0, 1, wide / 2, high / 2);
    context.rotate((this.view.turns * Math.PI) / 2);
    context.drawImage(this.video, -width / 2, -height / 2);
  }

  private stopDrawing(): void {
    clearInterval(this.redraw);
    this.redraw = undefined;
    this.drawn?.stop();
    this.drawn = null;
    if (this.video.paused) void this.video.play();
  }
}

function first(tracks: MediaStreamTrack[]): MediaStreamTrack {
  const [track] = tracks;
  if (!track) throw new Error('a canvas always has one track');
  return track;
}
