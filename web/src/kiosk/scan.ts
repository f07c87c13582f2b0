// Reading the slip's QR code with the kiosk's camera, where the browser can.
const LOOK_EVERY_MS = 250;

interface Detector {
  detect(source: CanvasImageSource): Promise<{ rawValue: string }[]>;
}
interface DetectorClass {
  new (options: { formats: string[] }): Detector;
  getSupportedFormats(): Promise<string[]>;
}

function detectorClass(): DetectorClass | undefined {
  return (globalThis as { BarcodeDetector?: DetectorClass }).BarcodeDetector;
}

export async function canScan(): Promise<boolean> {
  try {
    const formats = (await detectorClass()?.getSupportedFormats()) ?? [];
    return formats.includes('qr_code');
  } catch {
    return false;
  }
}

/** Look at the picture until a code is read. Returns the way to stop. */
export function openScanner(
  picture: () => HTMLVideoElement | null,
  onText: (text: string) => void,
): () => void {
  const Class = detectorClass();
  if (!Class) return () => undefined;
  const detector = new Class({ formats: ['qr_code'] });
  let isLooking = false;
  const timer = setInterval(async () => {
    const video = picture();
    if (isLooking || !video || video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) return;
    isLooking = true;
    try {
      const [code] = await detector.detect(video);
      if (code) onText(code.rawValue);
    } catch {
      // A frame that cannot be read is followed by another.
    } finally {
      isLooking = false;
    }
  }, LOOK_EVERY_MS);
  return () => clearInterval(timer);
}
