// A camera and a microphone that flash and beep together at the start of every whole second of the
// wall clock, so that two browsers on one machine do so at the same instant; and a second camera that
// looks at a sheet of paper.
(() => {
  const FLASH_MS = 120;
  const devices = navigator.mediaDevices;
  const real = devices.getUserMedia.bind(devices);
  const known = devices.enumerateDevices.bind(devices);
  const PAPER = { deviceId: 'paper', groupId: 'paper', kind: 'videoinput', label: '高拍仪' };
  devices.enumerateDevices = async () => [...(await known()), PAPER];
  const paper = () => {
    const canvas = Object.assign(document.createElement('canvas'), { width: 1280, height: 960 });
    const pen = canvas.getContext('2d');
    let drawn = 0;
    setInterval(() => {
      pen.fillStyle = '#f0e8d0';
      pen.fillRect(0, 0, 1280, 960);
      pen.fillStyle = '#222';
      pen.font = '80px sans-serif';
      pen.fillText('草原承包经营权证', 120, 200);
      pen.fillRect(120 + (drawn++ % 50), 900, 20, 4);
    }, 100);
    return canvas.captureStream(10);
  };
  devices.getUserMedia = async (wanted) => {
    if (wanted.video?.deviceId?.exact === PAPER.deviceId) return paper();
    const stream = new MediaStream();
    if (wanted.video) {
      const canvas = Object.assign(document.createElement('canvas'), { width: 640, height: 480 });
      const pen = canvas.getContext('2d');
      const draw = () => {
        pen.fillStyle = Date.now() % 1000 < FLASH_MS ? '#fff' : '#222';
        pen.fillRect(0, 0, 640, 480);
        pen.fillStyle = '#555'; // something moves, so that every frame is a new one
        pen.fillRect(Date.now() % 600, 440, 40, 20);
      };
      setInterval(draw, 1000 / 60);
      for (const track of canvas.captureStream(30).getTracks()) stream.addTrack(track);
    }
    if (wanted.audio) {
      const sound = new AudioContext({ sampleRate: 48000, latencyHint: 'interactive' });
      await sound.resume();
      const out = sound.createMediaStreamDestination();
      const tone = new OscillatorNode(sound, { frequency: 1000 });
      const gate = new GainNode(sound, { gain: 0 });
      tone.connect(gate).connect(out);
      tone.start();
      let next = Math.ceil(Date.now() / 1000) * 1000 + 1000;
      setInterval(() => {
        while (next - Date.now() < 500) {
          const at = sound.currentTime + (next - Date.now()) / 1000;
          gate.gain.setValueAtTime(0.5, at);
          gate.gain.setValueAtTime(0, at + FLASH_MS / 1000);
          next += 1000;
        }
      }, 100);
      for (const track of out.stream.getTracks()) stream.addTrack(track);
    }
    return stream.getTracks().length ? stream : real(wanted);
  };
})();
