// A still of a moving picture at its full size, turned the way it is seen.
const JPEG_QUALITY = 0.92;

/** A new canvas with the frame shown now, or null while there is no picture. */
export function takeStill(video: HTMLVideoElement, turns: number): HTMLCanvasElement | null {
  const { videoWidth: width, videoHeight: height } = video;
  if (!width || !height) return null;
  const isSideways = turns % 2 === 1;
  const canvas = document.createElement('canvas');
  canvas.width = isSideways ? height : width;
  canvas.height = isSideways ? width : height;
  const pen = canvas.getContext('2d');
  if (!pen) return null;
  pen.translate(canvas.width / 2, canvas.height / 2);
  pen.rotate((turns * Math.PI) / 2);
  pen.drawImage(video, -width / 2, -height / 2);
  return canvas;
}

export function toJpeg(canvas: HTMLCanvasElement): Promise<Blob> {
  return new Promise((resolve, reject) => {
    canvas.toBlob(
      (blob) => (blob ? resolve(blob) : reject(new Error('the still could not be written'))),
      'image/jpeg',
      JPEG_QUALITY,
    );
  });
}
