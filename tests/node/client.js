// node client.js HOST:PORT FILE [--partials]
//
// Streams a recording (WAV, FLAC, Ogg or MP3) to a server and prints its transcript. With --partials, interim results go to
// stderr. Made from the .proto at run time: no code of this project but that file.
'use strict';

const fs = require('fs');
const path = require('path');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

const PROTOS = process.env.ASR_PROTOS || path.join(__dirname, '..', '..', 'protos');

function speechClient(address) {
  const definition = protoLoader.loadSync('asr/v1/speech.proto', {
    includeDirs: [PROTOS],
    keepCase: true,
    enums: String,
    defaults: true,
  });
  const { Speech } = grpc.loadPackageDefinition(definition).asr.v1;
  return new Speech(address, grpc.credentials.createInsecure());
}

function main([address, file, flag]) {
  const client = speechClient(address);
  const call = client.StreamingRecognize();
  let transcript = '';

  call.on('data', (response) => {
    for (const result of response.results) {
      const text = result.alternatives[0].transcript;
      if (result.is_final) transcript += text;
      else if (flag === '--partials') console.error(`${result.stability.toFixed(2)} ${text}`);
    }
  });
  call.on('error', (error) => {
    console.error(`${grpc.status[error.code]}: ${error.details}`);
    process.exitCode = 1;
  });
  call.on('status', (status) => {
    if (status.code === grpc.status.OK) console.log(transcript);
    client.close();
  });

  call.write({ streaming_config: { config: { language_code: 'en' }, interim_results: true } });
  const audio = fs.createReadStream(file, { highWaterMark: 16 * 1024 });
  audio.on('error', (error) => {
    console.error(error.message);
    process.exitCode = 1;
    call.cancel();
  });
  audio.on('data', (chunk) => {
    // Flow control: wait when the server does not read.
    if (!call.write({ audio: chunk })) {
      audio.pause();
      call.once('drain', () => audio.resume());
    }
  });
  audio.on('end', () => call.end());
}

main(process.argv.slice(2));
