// Ask face-api for the emotion of every face; the same contract as adapters.py.
//
//     NODE_PATH=<its node_modules> node benchmarks/peers/face_api.js FACES.npy RESULT.json

const fs = require('fs');
const path = require('path');
const tf = require('@tensorflow/tfjs');
const wasm = require('@tensorflow/tfjs-backend-wasm');

const root = path.resolve(path.dirname(require.resolve('@vladmandic/face-api')), '..');
const faceapi = require(path.join(root, 'dist', 'face-api.node-wasm.js'));
const N_WARM_UP = 20;

// Return the faces of an .npy file of uint8 (N, S, S) as RGB, each a flat array.
function readFaces(file) {
  const bytes = fs.readFileSync(file);
  const start = 10 + bytes.readUInt16LE(8);
  const [count, size] = bytes.toString('latin1', 10, start).match(/\((\d+), (\d+), \d+\)/).slice(1).map(Number);
  const faces = [];
  for (let i = 0; i < count; i++) {
    const grey = bytes.subarray(start + i * size * size, start + (i + 1) * size * size);
    faces.push([Int32Array.from({ length: 3 * size * size }, (_, k) => grey[Math.floor(k / 3)]), [size, size, 3]]);
  }
  return faces;
}

async function main() {
  const [facesFile, resultFile] = process.argv.slice(2);
  wasm.setWasmPaths(path.dirname(require.resolve('@tensorflow/tfjs-backend-wasm')) + path.sep);
  wasm.setThreadsCount(Number(process.env.OMP_NUM_THREADS));
  await tf.setBackend('wasm');
  await tf.ready();
  await faceapi.nets.faceExpressionNet.loadFromDisk(path.join(root, 'model'));

  const classify = async ([values, shape]) => {
    const image = tf.tensor3d(values, shape, 'int32');
    const { ...scores } = await faceapi.nets.faceExpressionNet.predictExpressions(image);
    image.dispose();
    return scores;
  };

  const faces = readFaces(facesFile);
  for (const face of faces.slice(0, N_WARM_UP)) await classify(face);
  const scores = [];
  const milliseconds = [];
  for (const face of faces) {
    const begun = performance.now();
    scores.push(await classify(face));
    milliseconds.push(performance.now() - begun);
  }
  fs.writeFileSync(resultFile, JSON.stringify({ scores, milliseconds }));
}

main().catch((error) => {
  console.error(String(error));
  process.exit(1);
});
