// Paper. The slip is a PDF made by the server; the browser prints it without asking (kiosk policy).
const LOADED_WITHIN_MS = 15_000;

/** Send a PDF of our own server to the printer. Rejects when it could not be loaded. */
export function printPdf(url: string): Promise<void> {
  document.querySelector('iframe[data-print]')?.remove();
  const frame = document.createElement('iframe');
  frame.dataset['print'] = '';
  frame.hidden = true;
  frame.title = 'slip';
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error('the slip did not load')), LOADED_WITHIN_MS);
    frame.onload = () => {
      clearTimeout(timer);
      try {
        frame.contentWindow?.print();
        resolve();
      } catch (error) {
        reject(error instanceof Error ? error : new Error(String(error)));
      }
    };
    frame.src = url;
    document.body.append(frame);
  });
}
